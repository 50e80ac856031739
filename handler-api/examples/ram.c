/*
 * A disk in memory, as a handler plugin in C:  cc -shared -fPIC -I handler-api/include -o handler_ram_c.so ram.c
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tcmu_handler.h"

struct ram {
	char *memory;
};

static int32_t ram_open(const struct tcmu_open *open, struct tcmu_device_info *info, void **device, struct tcmu_text *error)
{
	struct ram *ram = malloc(sizeof(*ram));

	(void)open; /* its config string does not matter here */
	if (ram)
		ram->memory = calloc(1, info->size);
	if (!ram || !ram->memory) {
		snprintf(error->data, error->capacity, "there is no memory for %llu bytes", (unsigned long long)info->size);
		free(ram);
		return -ENOMEM;
	}
	info->flags &= ~TCMU_DEV_WRITE_CACHE; /* memory has none */
	*device = ram;
	return 0;
}

static void ram_close(void *device)
{
	struct ram *ram = device;

	free(ram->memory);
	free(ram);
}

static void ram_submit(void *device, struct tcmu_request *const *requests, uint32_t count)
{
	struct ram *ram = device;

	for (uint32_t n = 0; n < count; n++) {
		struct tcmu_request *request = requests[n];
		char *at = ram->memory + request->offset;
		int32_t status = TCMU_STATUS_OK;

		for (uint32_t i = 0; i < request->iov_count; at += request->iov[i++].iov_len) {
			if (request->op == TCMU_OP_READ)
				memcpy(request->iov[i].iov_base, at, request->iov[i].iov_len);
			else if (request->op == TCMU_OP_WRITE)
				memcpy(at, request->iov[i].iov_base, request->iov[i].iov_len);
			else
				status = -EOPNOTSUPP;
		}
		request->complete(request, status); /* exactly once; the request is not ours any more */
	}
}

static const struct tcmu_handler ram_handler = {
	.abi = TCMU_HANDLER_ABI,
	.struct_size = sizeof(struct tcmu_handler),
	.subtype = "ram_c",
	.name = "RAM disk in C",
	.version = "1.0",
	.config_desc = "ram_c/<anything>: a disk in memory",
	.threads = TCMU_THREADS_INLINE, /* submit never blocks */
	.open = ram_open,
	.close = ram_close,
	.submit = ram_submit,
};

const struct tcmu_handler *tcmu_handler_entry(void)
{
	return &ram_handler;
}
