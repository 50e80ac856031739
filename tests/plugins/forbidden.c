/*
 * A handler that tries what it should not be let do: a disk in memory whose config strings are attempts. `CheckConfig` makes the attempt
 * and is successful if the attempt is; else the reason is the system's.
 *
 * NEEDS: what it declares that it needs, a string.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tcmu_handler.h"

#ifndef NEEDS
#define NEEDS NULL
#endif

/* One that was there before anybody could say what it may do. */
static pthread_t early;
static void *wait_for_ever(void *nothing)
{
    pause();
    return nothing;
}
__attribute__((constructor)) static void start_early(void)
{
    pthread_create(&early, NULL, wait_for_ever, NULL);
}

static int closes(int fd)
{
    return fd < 0 ? -1 : close(fd);
}

static void *nothing(void *argument)
{
    return argument;
}

static int try_fork(void)
{
    pid_t child = fork();

    if (child == 0)
        _exit(0);
    return child < 0 ? -1 : waitpid(child, NULL, 0) < 0;
}

/* Each of these is refused. */
#define UNKNOWN 480
#define MANY 2000
static void *try_many(void *done)
{
    for (long call = UNKNOWN; call < UNKNOWN + MANY; call++)
        syscall(call);
    __atomic_store_n((int *)done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* fork() holds the locks of malloc while the kernel decides: who tells of refused calls must not want them. */
static int try_storm(void)
{
    pthread_t thread;
    int done = 0;

    if ((errno = pthread_create(&thread, NULL, try_many, &done)) != 0)
        return -1;
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
        try_fork();
    return pthread_join(thread, NULL);
}

/* -1 with errno set, or not */
static int attempt(const char *what)
{
    char path[64];
    char *const arguments[] = {"program", NULL};
    struct rlimit limit = {1000, 1000};
    pthread_t thread;

    /* what any handler may do */
    if (strcmp(what, "thread") == 0)
        return (errno = pthread_create(&thread, NULL, nothing, NULL)) ? -1 : pthread_join(thread, NULL);
    if (strcmp(what, "unix") == 0)
        return closes(socket(AF_UNIX, SOCK_STREAM, 0));
    if (strcmp(what, "raise") == 0)
        return signal(SIGUSR1, SIG_IGN), raise(SIGUSR1);
    /* what it may not: ENOENT and ENODEV would mean that it was let */
    if (strcmp(what, "execve") == 0)
        return execve("/nonexistent/program", arguments, arguments);
    if (strcmp(what, "fork") == 0)
        return try_fork();
    if (strcmp(what, "mount") == 0)
        return mount("none", "/", "nonexistent", 0, "");
    if (strcmp(what, "ptrace") == 0)
        return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) < 0 ? -1 : 0;
    if (strcmp(what, "module") == 0)
        return syscall(SYS_init_module, "", 0UL, "") < 0 ? -1 : 0;
    if (strcmp(what, "inet") == 0)
        return closes(socket(AF_INET, SOCK_STREAM, 0));
    if (strcmp(what, "netlink") == 0)
        return closes(socket(AF_NETLINK, SOCK_RAW, 0));
    if (strcmp(what, "kill") == 0)
        return kill(getppid(), 0);
    if (strcmp(what, "tgkill") == 0)
        return syscall(SYS_tgkill, getppid(), getppid(), 0) < 0 ? -1 : 0;
    if (strcmp(what, "limits") == 0)
        return syscall(SYS_prlimit64, getppid(), RLIMIT_NOFILE, &limit, NULL) < 0 ? -1 : 0;
    if (strcmp(what, "unshare") == 0)
        return unshare(CLONE_NEWUSER);
    if (strcmp(what, "bpf") == 0)
        return syscall(SYS_bpf, 0, NULL, 0) < 0 ? -1 : 0;
    if (strcmp(what, "reboot") == 0)
        return syscall(SYS_reboot, 0, 0, 0, NULL) < 0 ? -1 : 0;
    if (strcmp(what, "setuid") == 0)
        return setuid(getuid() + 1);
    if (strcmp(what, "storm") == 0)
        return try_storm();
    if (strcmp(what, "unknown") == 0)
        return syscall(4000) < 0 ? -1 : 0;
    if (strcmp(what, "memory") == 0) {
        snprintf(path, sizeof path, "/proc/%d/mem", (int)getppid());
        return closes(open(path, O_RDWR));
    }
    if (strcmp(what, "shadow") == 0)
        return closes(open("/etc/shadow", O_RDONLY));
    errno = EINVAL;
    return -1;
}

static int32_t forbidden_check_config(const char *config, struct tcmu_text *error)
{
    int problem;

    if (attempt(config) == 0)
        return 0;
    problem = errno;
    snprintf(error->data, error->capacity, "%s: %s", config, strerror(problem));
    return -problem;
}

static int32_t forbidden_open(const struct tcmu_open *open, struct tcmu_device_info *info, void **device, struct tcmu_text *error)
{
    (void)open;
    (void)error;
    *device = calloc(1, info->size);
    return *device == NULL ? -ENOMEM : 0;
}

static void forbidden_close(void *device)
{
    free(device);
}

static void forbidden_submit(void *device, struct tcmu_request *const *requests, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct tcmu_request *request = requests[i];
        unsigned char *at = (unsigned char *)device + request->offset;

        for (uint32_t s = 0; s < request->iov_count; at += request->iov[s++].iov_len) {
            if (request->op == TCMU_OP_READ)
                memcpy(request->iov[s].iov_base, at, request->iov[s].iov_len);
            else
                memcpy(at, request->iov[s].iov_base, request->iov[s].iov_len);
        }
        request->complete(request, TCMU_STATUS_OK);
    }
}

static const struct tcmu_handler handler = {
    .abi = TCMU_HANDLER_ABI,
    .struct_size = sizeof handler,
    .subtype = "forbidden",
    .name = "Tries what it may not",
    .version = "1.0",
    .config_desc = "forbidden/<attempt>",
    .threads = TCMU_THREADS_INLINE,
    .check_config = forbidden_check_config,
    .open = forbidden_open,
    .close = forbidden_close,
    .submit = forbidden_submit,
    .needs = NEEDS,
};

const struct tcmu_handler *tcmu_handler_entry(void)
{
    return &handler;
}
