/* Moves the wall clock of the processes that load this, and no other clock: by as many seconds as stand, as a long, in a
 * file. Who writes there lets it jump. What waits already goes on as if it had not.
 *
 *     cc -shared -fPIC -o wall_clock.so wall_clock.c
 *     TEST_WALL_CLOCK=FILE LD_PRELOAD=wall_clock.so PROGRAM
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))

static void *real_clock_gettime, *real_syscall, *real_sem_timedwait, *real_pthread_cond_timedwait;
static const volatile long *moved;

static void *real(void **found, const char *name)
{
    if (!*found)
        *found = dlsym(RTLD_NEXT, name);
    return *found;
}

/* For a process that has forked and was not started; 0 if it does so now. */
int follow_wall_clock(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *moved, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (mapped == MAP_FAILED)
        return -1;
    moved = mapped;
    return 0;
}

__attribute__((constructor)) static void from_the_start(void)
{
    const char *path = getenv("TEST_WALL_CLOCK");
    if (path)
        follow_wall_clock(path);
}

static long by(void)
{
    return moved ? *moved : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = REAL(clock_gettime)(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += by();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME_COARSE, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}

/* Who waits until a moment of the wall clock asks the kernel, which has the true one. */

static const struct timespec *true_moment(const struct timespec *until, struct timespec *moment)
{
    if (!until)
        return NULL;
    *moment = *until;
    moment->tv_sec = moment->tv_sec > by() ? moment->tv_sec - by() : 0;
    return moment;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec moment;
    return REAL(sem_timedwait)(semaphore, true_moment(until, &moment));
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    struct timespec moment;
    if (condition->__data.__wrefs & 2) /* glibc: it was made for the monotonic clock */
        return REAL(pthread_cond_timedwait)(condition, mutex, until);
    return REAL(pthread_cond_timedwait)(condition, mutex, true_moment(until, &moment));
}

long syscall(long number, ...)
{
    long given[6];
    struct timespec moment;
    va_list rest;
    va_start(rest, number);
    for (int index = 0; index < 6; index++)
        given[index] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_futex && given[1] & FUTEX_CLOCK_REALTIME)
        given[3] = (long)true_moment((const struct timespec *)given[3], &moment);
    return REAL(syscall)(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
