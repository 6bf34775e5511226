// CUDA on one CPU thread, as much as gemv.cu uses. Every GPU thread is a fiber; fibers take turns
// at barriers and at exchanges within a warp. What a GPU leaves open is chosen by a seed: which
// warp runs, and how far ahead of the others.
//
// Faults are found, not suffered: accesses outside the arguments, shared memory written past its
// end, threads that wait for each other, activations that are read before wait_for_previous_kernel
// (they are NaN until then).
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

using std::min;
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define SHARED_MEMORY(name) unsigned char* name = shim::shared

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace shim {

enum Fault { NONE, DEADLOCK, OUTSIDE, OVERRUN, NO_BARRIER };
enum Wait { RUNNABLE, AT_EXCHANGE, AT_BARRIER, DONE };
constexpr int MAX_THREADS = 1024, STACK = 64 << 10, GUARD = 64;

struct Copy {
  void* to;
  const void* from;
  unsigned bytes;
};

struct Fiber {
  ucontext_t context;
  Wait wait;
  bool after_previous_kernel;
  unsigned exchanges;                     // so far: consecutive ones use two sets of slots in turn
  std::deque<std::vector<Copy>> groups;   // of copies that are closed and not done
  std::vector<Copy> open;
};

struct Barrier {
  bool armed = false;
  long bytes = 0;
  unsigned phase = 0;
  std::vector<Copy> pending;
};

struct Range {
  const char* begin;
  const char* end;
};

// static, not inline: inline variables would be one for all libraries in a process.
static Fiber fibers[MAX_THREADS];
static char stacks[MAX_THREADS][STACK];
static unsigned slots[2][MAX_THREADS][6];
static ucontext_t scheduler;
static int now, threads, block_index, grid;
static bool late;  // asynchronous copies are done when they are waited for, not when issued
static Fault fault;
static std::vector<Range> readable;
static std::map<const void*, Barrier> barriers;
static void (*body)();
alignas(128) static unsigned char shared[SHARED_BYTES + GUARD];
static unsigned state;

inline unsigned random() { return (state = state * 1664525u + 1013904223u) >> 8; }

inline void pause(Wait why) {
  fibers[now].wait = why;
  swapcontext(&fibers[now].context, &scheduler);
}

inline void enter() {
  body();
  pause(DONE);
}

inline void check(const void* from, unsigned bytes) {
  const char* p = (const char*)from;
  for (const Range& range : readable) {
    if (p >= range.begin && p + bytes <= range.end) return;
  }
  fault = OUTSIDE;
}

inline void perform(const Copy& copy) {
  check(copy.from, copy.bytes);
  if (fault == NONE) memcpy(copy.to, copy.from, copy.bytes);
}

template <class T>
T read(const T* from, bool after_previous_kernel = true) {
  T value;
  memset(&value, 0xff, sizeof value);  // NaN as fp16
  check(from, sizeof value);
  if (fault == NONE && after_previous_kernel) value = *from;
  return value;
}

// A set of slots in which the lanes of a warp show each other a value. Valid until the lane's
// exchange after the next.
inline unsigned (*exchange(const unsigned* values, int count))[6] {
  const unsigned set = fibers[now].exchanges++ & 1;
  memcpy(slots[set][now], values, 4 * count);
  pause(AT_EXCHANGE);
  return slots[set];
}

inline bool all_wait(int first, int last, Wait why) {
  bool any = false;
  for (int i = first; i < last; i++) {
    if (fibers[i].wait == DONE) continue;
    if (fibers[i].wait != why) return false;
    any = true;
  }
  return any;
}

inline void release(int first, int last, Wait why) {
  for (int i = first; i < last; i++) {
    if (fibers[i].wait == why) fibers[i].wait = RUNNABLE;
  }
}

inline bool run_warp(int warp) {
  int order[32];
  for (int i = 0; i < 32; i++) order[i] = i;
  for (int i = 31; i > 0; i--) std::swap(order[i], order[random() % (i + 1)]);
  bool ran = false;
  for (int lane : order) {
    now = 32 * warp + lane;
    if (fibers[now].wait != RUNNABLE) continue;
    swapcontext(&scheduler, &fibers[now].context);
    ran = true;
  }
  const int first = 32 * warp;
  if (all_wait(first, first + 32, AT_EXCHANGE)) release(first, first + 32, AT_EXCHANGE);
  return ran;
}

inline void run_block() {
  memset(shared, 0xff, sizeof shared);
  barriers.clear();
  for (int i = 0; i < threads; i++) {
    Fiber& fiber = fibers[i];
    fiber.wait = RUNNABLE;
    fiber.after_previous_kernel = false;
    fiber.exchanges = 0;
    fiber.groups.clear();
    fiber.open.clear();
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks[i];
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  const int warps = threads / 32;
  int favourite = random() % warps;  // runs ahead; the others move when it waits, or now and then
  while (fault == NONE && !all_wait(0, threads, DONE)) {
    bool ran = run_warp(random() % 4 ? favourite : random() % warps);
    if (!ran) {
      favourite = random() % warps;
      for (int i = 0; i < warps && !ran; i++) ran = run_warp((favourite + i) % warps);
    }
    if (all_wait(0, threads, AT_BARRIER)) {
      release(0, threads, AT_BARRIER);
    } else if (!ran) {
      bool done = true;
      for (int i = 0; i < threads; i++) done &= fibers[i].wait == DONE;
      if (done) break;
      fault = DEADLOCK;
    }
  }
  for (int i = 0; i < GUARD; i++) {
    if (shared[SHARED_BYTES + i] != 0xff) fault = OVERRUN;
  }
}

struct ThreadIndex {
  struct {
    operator int() const { return now; }
  } x;
};
struct BlockIndex {
  struct {
    operator int() const { return block_index; }
  } x;
};
struct GridSize {
  struct {
    operator int() const { return grid; }
  } x;
};

inline float half(unsigned pair, int high) {
  const unsigned short bits = high ? pair >> 16 : pair & 0xffff;
  _Float16 value;
  memcpy(&value, &bits, 2);
  return value;
}

}  // namespace shim

static shim::ThreadIndex threadIdx;
static shim::BlockIndex blockIdx;
static shim::GridSize gridDim;

inline void __syncthreads() { shim::pause(shim::AT_BARRIER); }
inline void __syncwarp() { shim::pause(shim::AT_EXCHANGE); }
inline float rsqrtf(float value) { return 1 / std::sqrt(value); }

inline float __shfl_xor_sync(unsigned, float value, int mask) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  const int other = shim::now ^ mask;
  memcpy(&value, shim::exchange(&bits, 1)[other], 4);
  return value;
}

inline float to_float(u16 half) { return shim::half(half, 0); }

inline u16 to_half(float value) {
  const _Float16 half = value;
  u16 bits;
  memcpy(&bits, &half, 2);
  return bits;
}

// PTX ISA, "Matrix Fragments for mma.m16n8k16", lane = 4 g + t. A: rows g and g+8 of columns 2t..,
// then of 2t+8..; B: rows 2t.. and 2t+8.. of column g; D: columns 2t, 2t+1 of row g, then of row
// g+8.
inline void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  const u32 fragments[6] = {a0, a1, a2, a3, b0, b1};
  const int base = shim::now & ~31, g = (shim::now & 31) >> 2, t = shim::now & 3;
  auto lanes = shim::exchange(fragments, 6) + base;
  for (int e = 0; e < 4; e++) {
    const int below = e >> 1, column = 2 * t + (e & 1);
    double sum = d[e];
    for (int k = 0; k < 16; k++) {
      const u32* a = lanes[4 * g + ((k & 7) >> 1)];
      const u32* b = lanes[4 * column + ((k & 7) >> 1)];
      const double weight = shim::half(a[below + 2 * (k >> 3)], k & 1);
      sum += weight * shim::half(b[4 + (k >> 3)], k & 1);
    }
    d[e] = (float)sum;
  }
}

inline uint4 load_weights(const uint4* from) { return shim::read(from); }
inline u32 load_scales(const u32* from) { return shim::read(from); }
inline uint4 load_activations(const uint4* from) {
  return shim::read(from, shim::fibers[shim::now].after_previous_kernel);
}
inline u16 load_activation(const u16* from) {
  return shim::read(from, shim::fibers[shim::now].after_previous_kernel);
}
inline void let_next_kernel_start() {}
inline void wait_for_previous_kernel() { shim::fibers[shim::now].after_previous_kernel = true; }

inline void copy_async(void* to, const void* from, unsigned bytes) {
  const shim::Copy copy{to, from, bytes};
  if (shim::late) {
    shim::fibers[shim::now].open.push_back(copy);
  } else {
    shim::perform(copy);
  }
}
inline void copy16(uint4* to, const uint4* from) { copy_async(to, from, 16); }
inline void copy4(u32* to, const u32* from) { copy_async(to, from, 4); }

inline void close_copy_group() {
  shim::Fiber& fiber = shim::fibers[shim::now];
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}

template <int groups>
void wait_for_copies() {
  auto& waiting = shim::fibers[shim::now].groups;
  while (waiting.size() > groups) {
    for (const shim::Copy& copy : waiting.front()) shim::perform(copy);
    waiting.pop_front();
  }
}

inline void barrier_init(u64* barrier) { shim::barriers[barrier] = {}; }
inline void publish_barriers() {}

inline void barrier_turn(shim::Barrier& barrier) {
  if (!barrier.armed || barrier.bytes != 0) return;
  barrier.armed = false;
  barrier.phase ^= 1;
}

inline void barrier_expect(u64* barrier, u32 bytes) {
  shim::barriers[barrier].armed = true;
  shim::barriers[barrier].bytes += bytes;
}

inline void copy_bulk(void* to, const void* from, u32 bytes, u64* address) {
  shim::Barrier& barrier = shim::barriers[address];
  if (shim::late) {
    barrier.pending.push_back({to, from, bytes});
    return;
  }
  shim::perform({to, from, bytes});
  barrier.bytes -= bytes;
  barrier_turn(barrier);
}

inline void barrier_wait(u64* address, u32 parity) {
  if (!shim::barriers.count(address)) {
    shim::fault = shim::NO_BARRIER;
    return;
  }
  shim::Barrier& barrier = shim::barriers[address];
  for (int tries = 0; barrier.phase == parity && tries < 10000; tries++) {
    for (const shim::Copy& copy : barrier.pending) {
      shim::perform(copy);
      barrier.bytes -= copy.bytes;
    }
    barrier.pending.clear();
    barrier_turn(barrier);
    if (barrier.phase == parity) shim::pause(shim::RUNNABLE);
  }
}
