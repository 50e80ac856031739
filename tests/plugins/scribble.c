/*
 * A disk in a file whose handler scribbles over the ring of its own device, as a wild pointer would: it finds the mapping of the UIO
 * device in /proc/self/maps. With the next write after a word was put into <path>.scribble (and that file is removed):
 *
 *   head      cmd_head becomes a place outside of the ring
 *   tail      cmd_tail becomes another place
 *   entries   every entry of the ring becomes nonsense
 *   mailbox   so does the mailbox's description of the ring, which no reset puts right
 *
 * The file must be there, and as large as the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tcmu_handler.h"

/* struct tcmu_mailbox (linux/target_core_user.h) */
enum { CMDR_OFF = 4, CMDR_SIZE = 8, CMD_HEAD = 12, CMD_TAIL = 64 };

struct disk {
    int fd;
    char device[32]; /* user_<hba>/<name>, to say which one it was */
    char wish[256];
};

static void put32(unsigned char *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

/* The mapping that holds an address: the one of this device, since every other has its own. */
static unsigned char *mapping_of(const void *data)
{
    uintptr_t from, to;
    unsigned char *found = NULL;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");

    while (maps != NULL && found == NULL && fgets(line, sizeof line, maps) != NULL)
        if (strstr(line, "/dev/uio") != NULL && sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) == 2 &&
            (uintptr_t)data >= from && (uintptr_t)data < to)
            found = (unsigned char *)from;
    if (maps != NULL)
        fclose(maps);
    return found;
}

static void scribble(struct disk *disk, const char *what, unsigned char *ring)
{
    uint32_t offset, size;

    memcpy(&offset, ring + CMDR_OFF, sizeof offset);
    memcpy(&size, ring + CMDR_SIZE, sizeof size);
    fprintf(stderr, "scribbling over the ring of %s: %s\n", disk->device, what);
    if (strcmp(what, "head") == 0)
        put32(ring + CMD_HEAD, size + 8);
    else if (strcmp(what, "tail") == 0)
        put32(ring + CMD_TAIL, size / 2 & ~7u);
    else if (strcmp(what, "entries") == 0)
        memset(ring + offset, 0xa5, size);
    else if (strcmp(what, "mailbox") == 0) {
        put32(ring + CMDR_OFF, 0x7ffffff8);
        memset(ring + offset, 0xa5, size);
    }
}

static void look_for_a_wish(struct disk *disk, const void *data)
{
    char what[16] = "";
    unsigned char *ring;
    FILE *wish = fopen(disk->wish, "r");

    if (wish == NULL)
        return;
    if (fscanf(wish, "%15s", what) != 1)
        what[0] = '\0';
    fclose(wish);
    unlink(disk->wish);
    ring = mapping_of(data);
    if (ring != NULL)
        scribble(disk, what, ring);
}

static int32_t scribble_open(const struct tcmu_open *open_, struct tcmu_device_info *info, void **device, struct tcmu_text *error)
{
    struct disk *disk = calloc(1, sizeof *disk);

    (void)info;
    if (disk == NULL)
        return -ENOMEM;
    disk->fd = open(open_->config, O_RDWR | O_CLOEXEC);
    if (disk->fd < 0) {
        int problem = errno;

        snprintf(error->data, error->capacity, "%s: %s", open_->config, strerror(problem));
        free(disk);
        return -problem;
    }
    snprintf(disk->device, sizeof disk->device, "%s", open_->name);
    snprintf(disk->wish, sizeof disk->wish, "%s.scribble", open_->config);
    *device = disk;
    return 0;
}

static void scribble_close(void *device)
{
    struct disk *disk = device;

    close(disk->fd);
    free(disk);
}

static int32_t transfer(struct disk *disk, const struct tcmu_request *request)
{
    uint64_t at = request->offset;

    for (uint32_t s = 0; s < request->iov_count; at += request->iov[s++].iov_len) {
        const struct iovec *iov = &request->iov[s];
        ssize_t done = request->op == TCMU_OP_WRITE ? pwrite(disk->fd, iov->iov_base, iov->iov_len, (off_t)at)
                                                    : pread(disk->fd, iov->iov_base, iov->iov_len, (off_t)at);

        if (done != (ssize_t)iov->iov_len)
            return -EIO;
    }
    return TCMU_STATUS_OK;
}

static void scribble_submit(void *device, struct tcmu_request *const *requests, uint32_t count)
{
    struct disk *disk = device;

    for (uint32_t i = 0; i < count; i++) {
        struct tcmu_request *request = requests[i];
        int32_t status = -EOPNOTSUPP;

        if (request->op == TCMU_OP_READ || request->op == TCMU_OP_WRITE)
            status = transfer(disk, request);
        if (request->op == TCMU_OP_WRITE && request->iov_count > 0)
            look_for_a_wish(disk, request->iov[0].iov_base);
        request->complete(request, status);
    }
}

static const struct tcmu_handler handler = {
    .abi = TCMU_HANDLER_ABI,
    .struct_size = sizeof handler,
    .subtype = "scribble",
    .name = "Scribbles over rings",
    .version = "1.0",
    .config_desc = "scribble/<path>: a disk in a file; what is in <path>.scribble says what becomes of its ring",
    .threads = TCMU_THREADS_INLINE,
    .open = scribble_open,
    .close = scribble_close,
    .submit = scribble_submit,
};

const struct tcmu_handler *tcmu_handler_entry(void)
{
    return &handler;
}
