/* Calls of the C library that reach the system, for LD_PRELOAD: some fail, and some are written down.
 *
 *   CAMPAIGN_FOLDER  writes below this folder count
 *   CAMPAIGN_AT      the number of the write that fails, from 1; 0 for none
 *   CAMPAIGN_ERRNO   with this error
 *   CAMPAIGN_STAYS   all later writes fail too, as on a full disk; the first puts half of its bytes down
 *   CAMPAIGN_LOG     file that gets a line for each write below the folder, file opened for writing elsewhere,
 *                    program started and connection asked for
 *   CAMPAIGN_CLOCK   seconds added to the date
 *   CAMPAIGN_NO_NET  connections fail
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static atomic_int writes;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void note(const char *what, const char *about) {
    const char *file = getenv("CAMPAIGN_LOG");
    if (!file) return;
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", what, about);
    int handle = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (handle < 0) return;
    syscall(SYS_write, handle, line, length < (int)sizeof line ? length : (int)sizeof line - 1);
    syscall(SYS_close, handle);
}

static int below(const char *path) {
    const char *folder = getenv("CAMPAIGN_FOLDER");
    if (!folder) return 0;
    char whole[PATH_MAX];
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole)) return 0;
        if (strlen(whole) + strlen(path) + 2 > sizeof whole) return 0;
        strcat(strcat(whole, "/"), path);
        path = whole;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

/* 1 if this write is to fail. */
static int due(const char *what, const char *path) {
    if (!below(path)) return 0;
    int number = ++writes, at = atoi(getenv("CAMPAIGN_AT") ?: "0");
    note(what, path);
    if (!at || number < at || (number > at && !getenv("CAMPAIGN_STAYS"))) return 0;
    errno = atoi(getenv("CAMPAIGN_ERRNO") ?: "28");
    return number == at ? 1 : 2;
}

static int due_handle(const char *what, int handle) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return due(what, path);
}

static int half(int due) { return due == 1 && getenv("CAMPAIGN_STAYS"); }

ssize_t write(int handle, const void *bytes, size_t count) {
    int fails = due_handle("write", handle);
    if (half(fails) && count > 1) return syscall(SYS_write, handle, bytes, count / 2);
    return fails ? -1 : syscall(SYS_write, handle, bytes, count);
}

ssize_t pwrite64(int handle, const void *bytes, size_t count, off64_t at) {
    return due_handle("write", handle) ? -1 : syscall(SYS_pwrite64, handle, bytes, count, at);
}
ssize_t pwrite(int handle, const void *bytes, size_t count, off_t at) { return pwrite64(handle, bytes, count, at); }

ssize_t writev(int handle, const struct iovec *parts, int count) {
    return due_handle("write", handle) ? -1 : syscall(SYS_writev, handle, parts, count);
}

int fsync(int handle) { return due_handle("fsync", handle) ? -1 : syscall(SYS_fsync, handle); }
int fdatasync(int handle) { return due_handle("fsync", handle) ? -1 : syscall(SYS_fdatasync, handle); }
int ftruncate64(int handle, off64_t size) { return due_handle("truncate", handle) ? -1 : syscall(SYS_ftruncate, handle, size); }
int ftruncate(int handle, off_t size) { return ftruncate64(handle, size); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t count) {
    return due_handle("write", to) ? -1 : syscall(SYS_sendfile, to, from, at, count);
}
ssize_t sendfile(int to, int from, off_t *at, size_t count) { return sendfile64(to, from, at, count); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t count, unsigned flags) {
    return due_handle("write", to) ? -1 : syscall(SYS_copy_file_range, from, a, to, b, count, flags);
}

int mkdir(const char *path, mode_t mode) { return due("mkdir", path) ? -1 : syscall(SYS_mkdirat, AT_FDCWD, path, mode); }
int rename(const char *from, const char *to) {
    return due("rename", to) ? -1 : syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
int renameat(int a, const char *from, int b, const char *to) {
    return due("rename", to) ? -1 : syscall(SYS_renameat2, a, from, b, to, 0);
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    int writing = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);
    if (writing && below(path)) {
        /* Files that are there are written to later: only making one needs the disk. */
        if ((flags & O_CREAT) && syscall(SYS_faccessat, folder, path, F_OK) && due("create", path)) return -1;
    } else if (writing && strncmp(path, "/dev/", 5) && strncmp(path, "/proc/", 6)) {
        note("outside", path);
    }
    return syscall(SYS_openat, folder, path, flags, mode);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }

int execve(const char *path, char *const arguments[], char *const environment[]) {
    note("execute", path);
    return syscall(SYS_execve, path, arguments, environment);
}
int execv(const char *path, char *const arguments[]) { return execve(path, arguments, environ); }

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {
    note("execute", path);
    return REAL(posix_spawn)(pid, path, actions, attributes, arguments, environment);
}
int system(const char *command) {
    note("execute", command ?: "");
    return REAL(system)(command);
}
FILE *popen(const char *command, const char *mode) {
    note("execute", command);
    return REAL(popen)(command, mode);
}

int connect(int handle, const struct sockaddr *to, socklen_t length) {
    if (to->sa_family != AF_UNIX) {
        note("connect", to->sa_family == AF_INET6 ? "IPv6" : "IPv4");
        if (getenv("CAMPAIGN_NO_NET")) {
            errno = ENETUNREACH;
            return -1;
        }
    }
    return syscall(SYS_connect, handle, to, length);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, which, now);
    const char *moved = getenv("CAMPAIGN_CLOCK");
    if (!failed && moved && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += atoll(moved);
    return failed;
}
