/* Stands between a program and the disk (LD_PRELOAD): writes down what it does to the files below a folder, and lets calls fail.
 *
 *   DISK_ROOT   the folder; whatever lies elsewhere is let through
 *   DISK_LOG    the file to which the operations are appended, in the order in which they happen
 *   DISK_FAIL   CALL:ENDING:NUMBER:ERRNO   the call of this name ("write" for all kinds of writing, "sync" for all kinds of syncing) on files
 *               whose path ends so fails, from the NUMBERth on; with NUMBER followed by "once", only that one does
 *
 * Nothing is really synced: what a sync promises is for the reader of the log to say. An operation in the log, little-endian:
 *   u32 kind, u32 bytes of the path, u32 bytes of data, u32 0, u64 inode, u64 offset, path, data
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, SYNC, TRUNCATE, RENAME, UNLINK, MKDIR, RANGE };

#define MOST 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[MOST];
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static char fail_call[16], fail_ending[256];
static long fail_number, fail_seen;
static int fail_errno, fail_once;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_syncfs)(int);
static int (*real_range)(int, off64_t, off64_t, unsigned int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_mkdir)(const char *, mode_t);

__attribute__((constructor)) static void begin(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_syncfs = dlsym(RTLD_NEXT, "syncfs");
    real_range = dlsym(RTLD_NEXT, "sync_file_range");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_mkdir = dlsym(RTLD_NEXT, "mkdir");
    const char *folder = getenv("DISK_ROOT"), *to = getenv("DISK_LOG"), *fail = getenv("DISK_FAIL");
    if (folder == NULL || realpath(folder, root) == NULL) return;
    root_length = strlen(root);
    if (to != NULL) log_fd = real_open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    char once[8] = "";
    if (fail != NULL
        && sscanf(fail, "%15[^:]:%255[^:]:%ld%7[^:]:%d", fail_call, fail_ending, &fail_number, once, &fail_errno) != 5
        && sscanf(fail, "%15[^:]:%255[^:]:%ld:%d", fail_call, fail_ending, &fail_number, &fail_errno) != 4)
        abort();
    fail_once = strcmp(once, "once") == 0;
}

/* Tells whether a path is the folder or lies below it. */
static int below(const char *path) {
    return root_length > 0 && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static const char *path_of(int fd) {
    return fd >= 0 && fd < MOST ? paths[fd] : NULL;
}

static uint64_t inode_of(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

static uint64_t inode_at(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 ? status.st_ino : 0;
}

static void put(const void *bytes, size_t length) {
    while (length > 0) {
        ssize_t done = real_write(log_fd, bytes, length);
        if (done <= 0) abort();
        bytes = (const char *)bytes + done;
        length -= (size_t)done;
    }
}

static void note(enum kind kind, const char *path, uint64_t inode, uint64_t offset, const void *data, size_t length) {
    if (log_fd < 0) return;
    int before = errno;
    uint32_t words[4] = {kind, (uint32_t)strlen(path), (uint32_t)length, 0};
    uint64_t numbers[2] = {inode, offset};
    put(words, sizeof words);
    put(numbers, sizeof numbers);
    put(path, words[1]);
    put(data, length);
    errno = before;
}

/* Tells whether this call is to fail. */
static int fails(const char *call, const char *path) {
    if (fail_errno == 0 || strcmp(call, fail_call) != 0) return 0;
    size_t length = strlen(path), ending = strlen(fail_ending);
    if (length < ending || strcmp(path + length - ending, fail_ending) != 0) return 0;
    long seen = ++fail_seen;
    if (fail_once ? seen != fail_number : seen < fail_number) return 0;
    errno = fail_errno;
    return 1;
}

static int opened(int fd, const char *path, int flags, int was) {
    if (fd >= 0 && fd < MOST && below(path)) {
        paths[fd] = strdup(path);
        if ((flags & O_CREAT) && !was) note(CREATE, path, inode_of(fd), 0, NULL, 0);
        else if (flags & O_TRUNC) note(TRUNCATE, path, inode_of(fd), 0, NULL, 0);
    }
    return fd;
}

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    pthread_mutex_lock(&lock);
    int was = below(path) && inode_at(path) != 0;
    int fd = opened(real_openat(folder, path, flags, mode), path, flags, was);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return open_at(folder, path, flags, mode); }

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (path_of(fd) != NULL) {
        free(paths[fd]);
        paths[fd] = NULL;
    }
    int done = real_close(fd);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    pthread_mutex_lock(&lock);
    const char *path = path_of(fd);
    ssize_t done = path != NULL && fails("write", path) ? -1 : real_pwrite(fd, bytes, length, offset);
    if (path != NULL && done > 0) note(WRITE, path, inode_of(fd), (uint64_t)offset, bytes, (size_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

ssize_t write(int fd, const void *bytes, size_t length) {
    if (path_of(fd) == NULL) return real_write(fd, bytes, length);
    pthread_mutex_lock(&lock);
    const char *path = path_of(fd);
    off_t offset = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t done = fails("write", path) ? -1 : real_write(fd, bytes, length);
    if (done > 0) note(WRITE, path, inode_of(fd), (uint64_t)offset, bytes, (size_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (path_of(fd) == NULL) return real_writev(fd, parts, count);
    /* A short write is allowed. */
    return count == 0 ? 0 : write(fd, parts[0].iov_base, parts[0].iov_len);
}

int ftruncate64(int fd, off_t length) {
    pthread_mutex_lock(&lock);
    const char *path = path_of(fd);
    int done = real_ftruncate(fd, length);
    if (path != NULL && done == 0) note(TRUNCATE, path, inode_of(fd), (uint64_t)length, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int sync_of(int fd, int (*real)(int)) {
    pthread_mutex_lock(&lock);
    const char *path = path_of(fd);
    int done = 0;
    if (path == NULL) done = real(fd);
    else if (fails("sync", path)) done = -1;
    else note(SYNC, path, inode_of(fd), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) { return sync_of(fd, real_fsync); }
int fdatasync(int fd) { return sync_of(fd, real_fdatasync); }
int syncfs(int fd) { return real_syncfs(fd); }

int sync_file_range(int fd, off64_t offset, off64_t length, unsigned int flags) {
    pthread_mutex_lock(&lock);
    const char *path = path_of(fd);
    int done = 0;
    uint64_t bytes = (uint64_t)length;
    if (path == NULL) done = real_range(fd, offset, length, flags);
    else note(RANGE, path, inode_of(fd), (uint64_t)offset, &bytes, sizeof bytes);
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    uint64_t inode = inode_at(from);
    int done = below(from) && fails("rename", from) ? -1 : real_rename(from, to);
    if (done == 0 && below(from)) note(RENAME, from, inode, 0, to, strlen(to));
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    uint64_t inode = inode_at(path);
    int done = real_unlink(path);
    if (done == 0 && below(path)) note(UNLINK, path, inode, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&lock);
    int done = real_mkdir(path, mode);
    if (done == 0 && below(path)) note(MKDIR, path, inode_at(path), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}
