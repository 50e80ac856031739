/*
 * The least that serves a TCMU device: takes every entry off the ring, answers it, kicks once for all of them. What it reaches is what
 * the kernel's half allows; reads leave the buffer as it is. With a FILE it moves the data too, by one preadv or pwritev for each
 * entry, and flushes it when it is asked to: the least that serves a file.
 *
 * bare /dev/uioN MAP_BYTES DISK_BYTES POLL_MICROSECONDS [FILE]
 */
#define _DEFAULT_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/target_core_user.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* <sys/uio.h> and <linux/uio.h> both define struct iovec. */
ssize_t preadv(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset);

static char *map;
static int file = -1;

static int64_t microseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void big(unsigned char *to, uint64_t value, int bytes)
{
	while (bytes--) {
		to[bytes] = value;
		value >>= 8;
	}
}

/* READ(10) and WRITE(10) of the file. Returns the SCSI status. */
static int move(struct tcmu_cmd_entry *e, const unsigned char *cdb)
{
	off_t offset = ((uint64_t)cdb[2] << 24 | cdb[3] << 16 | cdb[4] << 8 | cdb[5]) * 512;
	struct iovec iov[1024];
	ssize_t length = 0, done;
	unsigned int n;

	for (n = 0; n < e->req.iov_cnt && n < 1024; n++) {
		iov[n].iov_base = map + (size_t)e->req.iov[n].iov_base;
		iov[n].iov_len = e->req.iov[n].iov_len;
		length += iov[n].iov_len;
	}
	done = cdb[0] == 0x28 ? preadv(file, iov, n, offset) : pwritev(file, iov, n, offset);
	return done == length ? 0 : 2;
}

/* Data-In that is just enough for a disk driver. Returns the SCSI status. */
static int answer(struct tcmu_cmd_entry *e, uint64_t blocks)
{
	const unsigned char *cdb = (unsigned char *)map + e->req.cdb_off;
	unsigned char data[36] = { 0 };
	unsigned int n, length = 0;

	if (file >= 0 && (cdb[0] == 0x28 || cdb[0] == 0x2a))
		return move(e, cdb);
	switch (cdb[0]) {
	case 0x00: case 0x28: case 0x2a: case 0x88: case 0x8a:
		return 0;
	case 0x35: case 0x91: /* SYNCHRONIZE CACHE */
		return file >= 0 && fdatasync(file) ? 2 : 0;
	case 0x12: /* INQUIRY */
		if (cdb[1] & 1)
			return 2;
		data[2] = 5, data[3] = 2, data[4] = 31;
		memcpy(data + 8, "NOBODY  BARE LOOP       1   ", 28);
		length = 36;
		break;
	case 0x1a: /* MODE SENSE(6) */
		data[0] = 3;
		length = 4;
		if (file >= 0) { /* A caching page, so that it is asked to flush: there is a write cache. */
			data[0] = 23;
			data[4] = 8, data[5] = 18, data[6] = 4;
			length = 24;
		}
		break;
	case 0x25: /* READ CAPACITY(10) */
		big(data, blocks - 1, 4);
		big(data + 4, 512, 4);
		length = 8;
		break;
	case 0x9e: /* READ CAPACITY(16) */
		big(data, blocks - 1, 8);
		big(data + 8, 512, 4);
		length = 32;
		break;
	default:
		return 2;
	}
	for (n = 0; n < e->req.iov_cnt && length; n++) {
		size_t part = e->req.iov[n].iov_len < length ? e->req.iov[n].iov_len : length;

		memcpy(map + (size_t)e->req.iov[n].iov_base, data, part);
		length -= part;
	}
	return 0;
}

/* Whether there is something, after polling for a while. */
static int has_entries(struct tcmu_mailbox *box, uint32_t tail, int poll_for)
{
	int64_t end = poll_for ? microseconds() + poll_for : 0;

	do {
		if (__atomic_load_n(&box->cmd_head, __ATOMIC_ACQUIRE) != tail)
			return 1;
	} while (poll_for && microseconds() < end);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 5 && argc != 6)
		errx(2, "/dev/uioN MAP_BYTES DISK_BYTES POLL_MICROSECONDS [FILE]");
	if (argc == 6 && (file = open(argv[5], O_RDWR)) < 0)
		err(1, "%s", argv[5]);
	int fd = open(argv[1], O_RDWR);
	size_t size = strtoull(argv[2], NULL, 0);
	uint64_t blocks = strtoull(argv[3], NULL, 0) / 512;
	int poll_for = atoi(argv[4]);
	uint32_t word, tail;

	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || map == MAP_FAILED)
		err(1, "%s", argv[1]);
	struct tcmu_mailbox *box = (struct tcmu_mailbox *)map;

	for (tail = box->cmd_tail;;) {
		if (!has_entries(box, tail, poll_for)) {
			struct pollfd wait = { .fd = fd, .events = POLLIN };

			poll(&wait, 1, -1);
			if (read(fd, &word, 4) != 4) {
				/* The device was removed. */
				if (errno == EIO)
					return 0;
				err(1, "read");
			}
			continue;
		}
		while (tail != __atomic_load_n(&box->cmd_head, __ATOMIC_ACQUIRE)) {
			struct tcmu_cmd_entry *e = (void *)(map + box->cmdr_off + tail);
			uint32_t length = tcmu_hdr_get_len(e->hdr.len_op);

			if (tcmu_hdr_get_op(e->hdr.len_op) == TCMU_OP_CMD) {
				int status = answer(e, blocks);

				memset(&e->rsp, 0, 8);
				e->rsp.scsi_status = status;
				if (status) { /* ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE */
					memset(e->rsp.sense_buffer, 0, TCMU_SENSE_BUFFERSIZE);
					e->rsp.sense_buffer[0] = 0x70;
					e->rsp.sense_buffer[2] = 5;
					e->rsp.sense_buffer[7] = 10;
					e->rsp.sense_buffer[12] = 0x20;
				}
			}
			tail = (tail + length) % box->cmdr_size;
		}
		__atomic_store_n(&box->cmd_tail, tail, __ATOMIC_RELEASE);
		word = 1;
		if (write(fd, &word, 4) != 4)
			err(1, "write");
	}
}
