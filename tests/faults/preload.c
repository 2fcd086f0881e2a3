/* A library for LD_PRELOAD that sees every call which changes a file, in a program and all that it starts.
 *
 * They are counted in a page that all these processes share (the file $FAULT_PAGE, laid out as `struct page`). Before
 * the call with the number `at`, what `action` says happens. Counted are calls below one of the directories in
 * $FAULT_UNDER (separated by colons); each is a line of $FAULT_LOG, where that is named.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { NOTHING, KILL_CALLER, KILL_FIRST, KILL_ALL, FAIL_SPACE, FAIL_EVERY, FLOCK_FAILS, FLOCK_LIES };
enum { PIDS = 4000 };

struct page {
  uint64_t calls, at;
  int32_t action, error;
  uint32_t count;
  int32_t pids[PIDS];
};

static struct page *page;
static const char *under;
static int log_file = -1;

static void enlist(void) {
  if (page) {
    uint32_t number = __atomic_fetch_add(&page->count, 1, __ATOMIC_SEQ_CST);
    if (number < PIDS) page->pids[number] = getpid();
  }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("FAULT_PAGE");
  if (!path) return;
  int fd = REAL(open)(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *found = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (found == MAP_FAILED) return;
  page = found;
  under = getenv("FAULT_UNDER");
  const char *log = getenv("FAULT_LOG");
  if (log) log_file = REAL(open)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  enlist();
  pthread_atfork(NULL, NULL, enlist);
}

static int is_under(const char *path) {
  for (const char *one = under; one && *one;) {
    size_t length = strcspn(one, ":");
    if (!strncmp(path, one, length) && (path[length] == '/' || !path[length])) return 1;
    one += length + (one[length] == ':');
  }
  return 0;
}

static const char *of_descriptor(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, buffer, PATH_MAX);
  buffer[length < 0 ? 0 : length] = 0;
  return buffer;
}

static const char *of_path(int at, const char *path, char *buffer) {
  if (path[0] == '/') return path;
  char directory[PATH_MAX + 1];
  if (at == AT_FDCWD) {
    if (!getcwd(directory, sizeof directory)) directory[0] = 0;
  } else {
    of_descriptor(at, directory);
  }
  snprintf(buffer, 2 * PATH_MAX + 2, "%s/%s", directory, path);
  return buffer;
}

static void end(int everyone) {
  uint32_t count = page->count < PIDS ? page->count : PIDS;
  for (uint32_t i = 0; i < (everyone ? count : 1); i++)
    if (page->pids[i] != getpid()) kill(page->pids[i], SIGKILL);
  if (everyone || page->pids[0] == getpid()) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
}

/* Whether the call is to fail with errno as it is set then. `space` says that it needs some. */
static int meets(const char *name, const char *path, int space) {
  if (!page || !is_under(path)) return 0;
  uint64_t number = __atomic_add_fetch(&page->calls, 1, __ATOMIC_SEQ_CST);
  if (log_file >= 0) dprintf(log_file, "%llu %s %s\n", (unsigned long long)number, name, path);
  if (!page->at || number < page->at) return 0;
  switch (page->action) {
    case KILL_CALLER:
      if (number == page->at) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
      }
      return 0;
    case KILL_FIRST:
      if (number == page->at) end(0);
      return 0;
    case KILL_ALL:
      if (number == page->at) end(1);
      return 0;
    case FAIL_SPACE:
      if (!space) return 0;
      /* fall through */
    case FAIL_EVERY:
      errno = page->error;
      return 1;
    default:
      return 0;
  }
}

static int meets_path(const char *name, int at, const char *path, int space) {
  char buffer[2 * PATH_MAX + 2];
  return page && path && meets(name, of_path(at, path, buffer), space);
}

static int meets_descriptor(const char *name, int fd, int space) {
  char buffer[PATH_MAX + 1];
  return page && meets(name, of_descriptor(fd, buffer), space);
}

static int opens(const char *name, int at, const char *path, int flags) {
  if (!page || !(flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))) return 0;
  return meets_path(name, at, path, flags & O_CREAT && faccessat(at, path, F_OK, 0) != 0);
}

#define MODE                                   \
  mode_t mode = 0;                             \
  if (flags & (O_CREAT | __O_TMPFILE)) {       \
    va_list rest;                              \
    va_start(rest, flags);                     \
    mode = va_arg(rest, mode_t);               \
    va_end(rest);                              \
  }

int open(const char *path, int flags, ...) {
  MODE return opens("open", AT_FDCWD, path, flags) ? -1 : REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  MODE return opens("open", AT_FDCWD, path, flags) ? -1 : REAL(open64)(path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
  MODE return opens("open", at, path, flags) ? -1 : REAL(openat)(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
  MODE return opens("open", at, path, flags) ? -1 : REAL(openat64)(at, path, flags, mode);
}

ssize_t write(int fd, const void *data, size_t size) {
  return meets_descriptor("write", fd, 1) ? -1 : REAL(write)(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *data, int count) {
  return meets_descriptor("write", fd, 1) ? -1 : REAL(writev)(fd, data, count);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  return meets_descriptor("write", fd, 1) ? -1 : REAL(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  return meets_descriptor("write", fd, 1) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags) {
  return meets_descriptor("write", to, 1) ? -1 : REAL(copy_file_range)(from, at, to, there, size, flags);
}
ssize_t sendfile(int to, int from, off_t *at, size_t size);
ssize_t sendfile(int to, int from, off_t *at, size_t size) {
  return meets_descriptor("write", to, 1) ? -1 : REAL(sendfile)(to, from, at, size);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size);
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
  return meets_descriptor("write", to, 1) ? -1 : REAL(sendfile64)(to, from, at, size);
}
int ftruncate(int fd, off_t size) { return meets_descriptor("truncate", fd, 0) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return meets_descriptor("truncate", fd, 0) ? -1 : REAL(ftruncate64)(fd, size); }
int fsync(int fd) { return meets_descriptor("fsync", fd, 1) ? -1 : REAL(fsync)(fd); }
int fchmod(int fd, mode_t mode) { return meets_descriptor("chmod", fd, 0) ? -1 : REAL(fchmod)(fd, mode); }
int chmod(const char *path, mode_t mode) {
  return meets_path("chmod", AT_FDCWD, path, 0) ? -1 : REAL(chmod)(path, mode);
}
int fchmodat(int at, const char *path, mode_t mode, int flags) {
  return meets_path("chmod", at, path, 0) ? -1 : REAL(fchmodat)(at, path, mode, flags);
}
int rename(const char *old, const char *new) {
  return meets_path("rename", AT_FDCWD, new, 0) ? -1 : REAL(rename)(old, new);
}
int renameat(int from, const char *old, int to, const char *new) {
  return meets_path("rename", to, new, 0) ? -1 : REAL(renameat)(from, old, to, new);
}
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
  return meets_path("exchange", to, new, 0) ? -1 : REAL(renameat2)(from, old, to, new, flags);
}
int mkdir(const char *path, mode_t mode) {
  return meets_path("mkdir", AT_FDCWD, path, 1) ? -1 : REAL(mkdir)(path, mode);
}
int mkdirat(int at, const char *path, mode_t mode) {
  return meets_path("mkdir", at, path, 1) ? -1 : REAL(mkdirat)(at, path, mode);
}
int unlink(const char *path) { return meets_path("unlink", AT_FDCWD, path, 0) ? -1 : REAL(unlink)(path); }
int unlinkat(int at, const char *path, int flags) {
  return meets_path("unlink", at, path, 0) ? -1 : REAL(unlinkat)(at, path, flags);
}
int rmdir(const char *path) { return meets_path("rmdir", AT_FDCWD, path, 0) ? -1 : REAL(rmdir)(path); }
int link(const char *old, const char *new) {
  return meets_path("link", AT_FDCWD, new, 1) ? -1 : REAL(link)(old, new);
}
int linkat(int from, const char *old, int to, const char *new, int flags) {
  return meets_path("link", to, new, 1) ? -1 : REAL(linkat)(from, old, to, new, flags);
}
int symlink(const char *old, const char *new) {
  return meets_path("symlink", AT_FDCWD, new, 1) ? -1 : REAL(symlink)(old, new);
}
int symlinkat(const char *old, int at, const char *new) {
  return meets_path("symlink", at, new, 1) ? -1 : REAL(symlinkat)(old, at, new);
}

int flock(int fd, int operation) {
  if (page && page->action == FLOCK_LIES) return 0;
  if (page && page->action == FLOCK_FAILS) {
    errno = page->error;
    return -1;
  }
  return meets_descriptor("flock", fd, 0) ? -1 : REAL(flock)(fd, operation);
}

/* The clock is wrong by $FAULT_CLOCK seconds. What measures durations, CLOCK_MONOTONIC, is right. */
static time_t shift(void) {
  const char *text = getenv("FAULT_CLOCK");
  return text ? atoll(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = REAL(clock_gettime)(clock, now);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += shift();
  return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  int result = REAL(gettimeofday)(now, zone);
  now->tv_sec += shift();
  return result;
}
time_t time(time_t *at) {
  time_t now = REAL(time)(NULL) + shift();
  if (at) *at = now;
  return now;
}
