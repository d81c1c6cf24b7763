/* Preloaded: every tensor of PyTorch gets pages of its own between two that nobody may touch.
 *
 * PyTorch allocates CPU tensors by posix_memalign(64). GUARDED_SIDE says where a tensor lies in its pages: `end` (it ends where the
 * untouchable page begins, up to its alignment) or `start`. GUARDED_FILL is the byte that fresh memory holds, so that what is read
 * before it is written differs between two fills; `guarded_set` says both anew, for children of one process that differ in nothing else.
 * Freed pages become untouchable and are not used again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096ul
#define PAGES (1ul << 25) /* 128 GiB of addresses; no memory */
#define FILLED (8ul << 20) /* of a large tensor only its two ends are filled, so that it stays as lazy as it was */

static char *arena;
static uint32_t *extent; /* pages of the allocation that begins at each page */
static unsigned long next_page = 1;
static int at_end, fill;
static void (*libc_free)(void *);
static int (*libc_posix_memalign)(void **, size_t, size_t);

__attribute__((constructor)) static void prepare(void) {
    libc_free = dlsym(RTLD_NEXT, "free");
    libc_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    const char *side = getenv("GUARDED_SIDE"), *byte = getenv("GUARDED_FILL");
    at_end = side != NULL && strcmp(side, "end") == 0;
    fill = byte != NULL ? atoi(byte) : 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *table = mmap(NULL, PAGES * sizeof *extent, PROT_READ | PROT_WRITE, flags, -1, 0);
    void *space = mmap(NULL, PAGES * PAGE, PROT_NONE, flags, -1, 0);
    if (table != MAP_FAILED && space != MAP_FAILED) {
        extent = table;
        arena = space;
    }
}

void guarded_set(int is_at_end, int byte) {
    at_end = is_at_end;
    fill = byte;
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    if (libc_posix_memalign == NULL) libc_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    if (arena == NULL || alignment != 64 || size == 0 || size > (1ul << 34)) return libc_posix_memalign(result, alignment, size);
    unsigned long pages = (size + PAGE - 1) / PAGE;
    unsigned long page = __atomic_fetch_add(&next_page, pages + 1, __ATOMIC_RELAXED);
    if (page + pages + 1 >= PAGES) return libc_posix_memalign(result, alignment, size);
    char *base = arena + page * PAGE;
    if (mprotect(base, pages * PAGE, PROT_READ | PROT_WRITE) != 0) return ENOMEM;
    extent[page] = (uint32_t)pages;
    unsigned long whole = pages * PAGE;
    if (whole <= 2 * FILLED) {
        memset(base, fill, whole);
    } else {
        memset(base, fill, FILLED);
        memset(base + whole - FILLED, fill, FILLED);
    }
    *result = at_end ? base + ((whole - size) & ~63ul) : base;
    return 0;
}

void free(void *pointer) {
    if (arena != NULL && (char *)pointer >= arena && (char *)pointer < arena + PAGES * PAGE) {
        unsigned long page = (unsigned long)((char *)pointer - arena) / PAGE;
        while (page > 0 && extent[page] == 0) page--; /* at_end: less than a page in front, so the first or the one before */
        char *base = arena + page * PAGE;
        unsigned long whole = (unsigned long)extent[page] * PAGE;
        madvise(base, whole, MADV_DONTNEED);
        mprotect(base, whole, PROT_NONE);
        return;
    }
    if (libc_free == NULL) libc_free = dlsym(RTLD_NEXT, "free");
    libc_free(pointer);
}
