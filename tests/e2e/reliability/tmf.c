/*
 * An initiator that gives up: tmf PORTAL TARGET abort|reset WRITES MILLISECONDS BYTE [ANSWERS]. Writes that many 4 KiB of a byte, to blocks
 * 0, 8, 16 and so on, lets them be for a while (not longer than until so many are answered), aborts the first one or resets the logical
 * unit, and prints how long the answer took, what it was, and how many writes had been answered before it. With "count" it reads as many
 * and prints how many are full of that byte.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

enum { LENGTH = 4096, BLOCK = 512, PATIENCE_MS = 60000 };

static int written, enough = -1;
static int reads, expected = -1; /* of "count" */
static int answer = -1;

static double now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void on_write(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    (void)iscsi;
    (void)data;
    (void)private_data;
    if (answer < 0 && status == SCSI_STATUS_GOOD)
        written++;
}

static void on_answer(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    (void)iscsi;
    (void)private_data;
    answer = status == SCSI_STATUS_GOOD ? (int)*(uint32_t *)data : 1000;
}

static void on_read(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    struct scsi_task *task = data;
    unsigned char byte = *(unsigned char *)private_data;
    int n = 0;

    (void)iscsi;
    while (status == SCSI_STATUS_GOOD && n < task->datain.size && task->datain.data[n] == byte)
        n++;
    written += n == LENGTH;
    reads++;
}

/* Until the answer is there, or all that was read, or enough is written, or the time is over. */
static int serve(struct iscsi_context *iscsi, double until)
{
    while (answer < 0 && reads != expected && (enough < 0 || written < enough) && now_ms() < until) {
        struct pollfd fd = {.fd = iscsi_get_fd(iscsi), .events = (short)iscsi_which_events(iscsi)};

        if (poll(&fd, 1, 10) < 0 || iscsi_service(iscsi, fd.revents) < 0) {
            fprintf(stderr, "%s\n", iscsi_get_error(iscsi));
            return -1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static unsigned char data[LENGTH];
    struct iscsi_context *iscsi = iscsi_create_context("iqn.2026-01.org.example:impatient");
    struct scsi_task *first = NULL;
    double asked;
    int status, counts;

    if (argc < 7 || argc > 8 || iscsi == NULL)
        return 2;
    if (argc == 8)
        enough = atoi(argv[7]);
    counts = strcmp(argv[3], "count") == 0;
    if (counts)
        expected = atoi(argv[4]);
    memset(data, (int)strtol(argv[6], NULL, 0), sizeof data);
    iscsi_set_targetname(iscsi, argv[2]);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    if (iscsi_full_connect_sync(iscsi, argv[1], 0) != 0) {
        fprintf(stderr, "%s\n", iscsi_get_error(iscsi));
        return 1;
    }
    for (int n = 0; n < atoi(argv[4]); n++) {
        uint32_t lba = (uint32_t)n * (LENGTH / BLOCK);
        struct scsi_task *task = counts ? iscsi_read10_task(iscsi, 0, lba, LENGTH, BLOCK, 0, 0, 0, 0, 0, on_read, data)
                                        : iscsi_write10_task(iscsi, 0, lba, data, LENGTH, BLOCK, 0, 0, 0, 0, 0, on_write, NULL);

        if (task == NULL)
            return 1;
        if (n == 0)
            first = task;
    }
    if (serve(iscsi, now_ms() + atoi(argv[5])) < 0)
        return 1;
    if (counts) {
        printf("%d\n", written);
        return reads != expected;
    }
    enough = -1;
    asked = now_ms();
    status = strcmp(argv[3], "reset") == 0 ? iscsi_task_mgmt_lun_reset_async(iscsi, 0, on_answer, NULL)
                                           : iscsi_task_mgmt_abort_task_async(iscsi, first, on_answer, NULL);
    if (status != 0 || serve(iscsi, asked + PATIENCE_MS) < 0)
        return 1;
    printf("%.0f %d %d\n", now_ms() - asked, answer, written);
    /* Without a logout: whoever looks at the disk now sees it as it was when the answer came. */
    return answer < 0;
}
