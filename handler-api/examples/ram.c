/*
 * A disk in memory, in C: the whole handler.
 *
 *     cc -shared -fPIC -I include examples/ram.c -o handler_ramc.so
 *     tcmuctl handler test ./handler_ramc.so
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tcmu_handler.h"

/* What a device is, is the handler's own affair: the host only carries the pointer. */
struct ram {
    unsigned char *bytes;
};

/* Called when a device is made; may block. `info` says how large the kernel was told the disk is. */
static int32_t ram_open(const struct tcmu_open *open, struct tcmu_device_info *info, void **device, struct tcmu_text *error)
{
    struct ram *ram = malloc(sizeof *ram);

    (void)open; /* the config string is open->config; this disk needs none */
    if (ram == NULL || (ram->bytes = calloc(1, info->size)) == NULL) {
        snprintf(error->data, error->capacity, "no memory for a disk of %llu bytes", (unsigned long long)info->size);
        free(ram);
        return -ENOMEM;
    }
    *device = ram;
    return 0;
}

/* Called when the device goes away; no request is outstanding. */
static void ram_close(void *device)
{
    struct ram *ram = device;

    free(ram->bytes);
    free(ram);
}

/* Takes a batch of requests. The host has checked that each range lies within the disk. */
static void ram_submit(void *device, struct tcmu_request *const *requests, uint32_t count)
{
    struct ram *ram = device;

    for (uint32_t i = 0; i < count; i++) {
        struct tcmu_request *request = requests[i];
        unsigned char *at = ram->bytes + request->offset;
        int32_t status = TCMU_STATUS_OK;

        switch (request->op) {
        case TCMU_OP_READ: /* the data is in segments of any length and alignment */
            for (uint32_t s = 0; s < request->iov_count; at += request->iov[s++].iov_len)
                memcpy(request->iov[s].iov_base, at, request->iov[s].iov_len);
            break;
        case TCMU_OP_WRITE:
            for (uint32_t s = 0; s < request->iov_count; at += request->iov[s++].iov_len)
                memcpy(at, request->iov[s].iov_base, request->iov[s].iov_len);
            break;
        default: /* not announced in `info->ops`; a newer host may ask all the same */
            status = -EOPNOTSUPP;
        }
        request->complete(request, status); /* exactly once; the request is not ours any more */
    }
}

/* One table for ever: facts first, then functions. What is left out is null, and the host makes do without. */
static const struct tcmu_handler handler = {
    .abi = TCMU_HANDLER_ABI,
    .struct_size = sizeof handler,
    .subtype = "ramc",
    .name = "RAM disk in C",
    .version = "1.0",
    .config_desc = "ramc/<anything>: a disk in memory",
    .threads = TCMU_THREADS_INLINE, /* copying memory never blocks */
    .open = ram_open,
    .close = ram_close,
    .submit = ram_submit,
};

const struct tcmu_handler *tcmu_handler_entry(void)
{
    return &handler;
}
