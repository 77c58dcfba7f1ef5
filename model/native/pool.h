/* A few threads that walk through the phases of a pass together with the caller.
 *
 * A phase is a number of independent units; whoever is free claims the next one, and nobody enters phase p + 1 before
 * every unit of phase p is done. What counts is units done and not threads arrived: a thread that the system wakes late,
 * or takes off its core, holds nobody up unless it has a unit in hand. Between passes the threads sleep on a condition
 * variable; inside one, a wait spins for some microseconds and then yields the core.
 *
 * A process that was forked has the memory of a pool and none of its threads: there the caller goes alone, and nobody is
 * waited for.
 */
#ifndef POOL_H
#define POOL_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "vectors.h"

#define SPINS 2000

typedef struct {
    _Alignas(64) atomic_int claimed;
    atomic_int done;
} Phase;

typedef struct Pool Pool;
typedef void (*Job)(void *argument, int thread);
typedef struct {
    Pool *pool;
    int index;
} Member;

struct Pool {
    pid_t home; /* the process that the threads are in */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int n_threads; /* the caller is one of them */
    int n_phases;
    pthread_t *threads;
    Member *members;
    Phase *phases;
    bool open, stop;
    unsigned pass;
    atomic_int inside;
    Job job;
    void *argument;
};

INLINE void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The next unit of a phase for this thread, or -1 once all of them are done. */
static int next_unit(Pool *pool, int phase, int units, int finished) {
    Phase *p = &pool->phases[phase];
    if (finished >= 0) atomic_fetch_add_explicit(&p->done, 1, memory_order_acq_rel);
    if (atomic_load_explicit(&p->claimed, memory_order_relaxed) < units) {
        int unit = atomic_fetch_add_explicit(&p->claimed, 1, memory_order_relaxed);
        if (unit < units) return unit;
    }
    for (int spins = 0; atomic_load_explicit(&p->done, memory_order_acquire) < units; spins++) {
        if (spins < SPINS)
            pause_briefly();
        else
            sched_yield();
    }
    return -1;
}

#define FOR_UNITS(unit, pool, phase, units)                                                                            \
    for (int unit = next_unit(pool, phase, units, -1); unit >= 0; unit = next_unit(pool, phase, units, unit))

static void *pool_thread(void *argument) {
    Member *member = argument;
    Pool *pool = member->pool;
    unsigned seen = 0;
    pthread_mutex_lock(&pool->lock);
    while (!pool->stop) {
        if (!pool->open || pool->pass == seen) {
            pthread_cond_wait(&pool->wake, &pool->lock);
            continue;
        }
        seen = pool->pass;
        atomic_fetch_add(&pool->inside, 1);
        pthread_mutex_unlock(&pool->lock);
        pool->job(pool->argument, member->index);
        atomic_fetch_sub(&pool->inside, 1);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Run a job on every thread that wakes in time; back when all its phases are done and nobody is inside. */
static void pool_run(Pool *pool, Job job, void *argument) {
    for (int i = 0; i < pool->n_phases; i++) {
        atomic_store_explicit(&pool->phases[i].claimed, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->phases[i].done, 0, memory_order_relaxed);
    }
    if (getpid() != pool->home) {
        job(argument, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->job = job;
    pool->argument = argument;
    pool->open = true;
    pool->pass++;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    job(argument, 0);
    pthread_mutex_lock(&pool->lock);
    pool->open = false;
    pthread_mutex_unlock(&pool->lock);
    while (atomic_load(&pool->inside) > 0) sched_yield();
}

static void pool_close(Pool *pool) {
    if (getpid() == pool->home) {
        pthread_mutex_lock(&pool->lock);
        pool->stop = true;
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
        for (int i = 1; i < pool->n_threads; i++) pthread_join(pool->threads[i], NULL);
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->lock);
    }
    free(pool->threads);
    free(pool->members);
    free(pool->phases);
}

/* False where memory is short. A thread that cannot be started is done without. */
static bool pool_open(Pool *pool, int n_threads, int n_phases) {
    memset(pool, 0, sizeof *pool);
    pool->home = getpid();
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->n_phases = n_phases;
    pool->n_threads = 1;
    pool->threads = calloc((size_t)n_threads, sizeof *pool->threads);
    pool->members = calloc((size_t)n_threads, sizeof *pool->members);
    pool->phases = aligned_alloc(64, (size_t)n_phases * sizeof *pool->phases);
    if (!pool->threads || !pool->members || !pool->phases) {
        pool_close(pool);
        return false;
    }
    for (int i = 1; i < n_threads; i++) {
        pool->members[i] = (Member){pool, i};
        if (pthread_create(&pool->threads[i], NULL, pool_thread, &pool->members[i]) != 0) break;
        pool->n_threads = i + 1;
    }
    return true;
}

#endif
