// CUDA on one CPU thread. Every GPU thread is a fiber; fibers take turns at barriers and at
// exchanges within a warp, in an order chosen by a seed: which CTA, which warp, which lane.
//
// The kernel is compiled with -fsanitize=thread, without its library: the compiler then calls a
// function before each access to memory, and this file has those functions. So faults are found
// whatever the order, and before they do harm:
//   - an access outside the buffers of the launch and outside shared memory, or not aligned;
//   - two threads at one place in shared or global memory, one of them writing, without a barrier
//     between (a shuffle or mma is none), or with an asynchronous copy under way;
//   - shared memory that is read before it is written;
//   - what the kernel before writes, read before wait_for_previous_kernel; anything written before;
//   - threads that wait for each other, lanes of a warp at different instructions.
#include "cuda_emulation.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

#undef threadIdx
#undef blockIdx
#undef gridDim

extern "C" void emulation_switch(void** from, void* to);  // of fibers: stack pointers

namespace emulation {
namespace {

enum Wait { RUNNABLE, AT_EXCHANGE, AT_BARRIER, DONE };
enum Kind { READ_ONLY, READ_EARLY, AFTER_PREVIOUS };  // of buffers
constexpr int MOST_THREADS = 1024, STACK = 96 << 10, UNIT = 2;  // bytes that share a Shadow

struct Copy {
  void* to;
  const void* from;
  u32 bytes;
};

struct Fiber {
  void* stack_pointer;
  Wait wait;
  Exchange exchange;
  bool after_previous;
  u32 exchanges;  // so far: consecutive ones use two sets of slots in turn
  std::deque<std::vector<Copy>> groups;  // of copies that are closed and not done
  std::vector<Copy> open;
};

// Who was last at a place. Threads of a CTA are ordered by barriers: by those of their warp if they
// share one, else by those of the CTA. Epochs count them.
struct Shadow {
  int writer = -1, writer_block = -1;
  u32 write_epoch = 0, write_warp_epoch = 0;
  bool under_way = false;  // an asynchronous copy
  int reader = -1, reader_block = -1;  // the last; OTHERS: several since the last barrier
  bool several_warps = false, several_lanes = false, several_blocks = false;
  u32 read_epoch = 0, read_warp_epoch = 0;
};

struct Buffer {
  Range range;
  Shadow* shadow;
};

// What a CTA knows of others: their accesses before an epoch, and those of one thread in it.
struct Release {
  u32 epoch;
  int thread;
};
using Knowledge = std::map<int, Release>;

Fiber fibers[MOST_THREADS];
char* stacks;
u32 slots[2][MOST_THREADS][6];
void* scheduler;
int now, threads, block;
Index grid;
bool late;  // asynchronous copies are done when they are waited for, not when issued
char fault[512];
std::vector<Buffer> buffers;
unsigned char* shared;
u64 shared_size;
std::vector<Shadow> shared_shadow;
u32 epoch, warp_epochs[MOST_THREADS / 32];
std::map<u32*, Knowledge> counters;
Knowledge known, arrived;  // by all threads, and by those that wait at the barrier
void (*body)();
u32 state;
float halves[1 << 16];

u32 random() { return (state = state * 1664525u + 1013904223u) >> 8; }

#if defined(__x86_64__)
asm(R"(
.text
.hidden emulation_switch
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
void* prepared_stack(char* stack, void (*enter)()) {
  void** top = (void**)(stack + STACK) - 2;
  *top = (void*)enter;
  memset(top - 6, 0, 6 * sizeof *top);
  return top - 6;
}
#elif defined(__aarch64__)
asm(R"(
.text
.hidden emulation_switch
.globl emulation_switch
.type emulation_switch, %function
emulation_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
void* prepared_stack(char* stack, void (*enter)()) {
  void** frame = (void**)(stack + STACK - 160);
  memset(frame, 0, 160);
  frame[11] = (void*)enter;  // x30
  return frame;
}
#else
#error "fibers need x86-64 or AArch64"
#endif

void pause(Wait why) {
  fibers[now].wait = why;
  emulation_switch(&fibers[now].stack_pointer, scheduler);
}

// Ends the launch: this fiber does not go on.
[[noreturn]] void fail(const char* format, ...) {
  const int length = snprintf(fault, sizeof fault, "CTA %d, thread %d: ", block, now);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(fault + length, sizeof fault - length, format, arguments);
  va_end(arguments);
  pause(DONE);
  abort();
}

void enter() {
  body();
  pause(DONE);
  abort();
}

// Has this thread a barrier between itself and what another did?
bool ordered(int thread, int its_block, u32 its_epoch, u32 its_warp_epoch) {
  if (its_block != block) {
    const auto entry = known.find(its_block);
    if (entry == known.end()) return false;
    const Release& release = entry->second;
    return its_epoch < release.epoch || (its_epoch == release.epoch && thread == release.thread);
  }
  if (thread == now) return true;
  if (thread / 32 == now / 32) return its_warp_epoch != warp_epochs[now / 32];
  return its_epoch != epoch;
}

void note_read(Shadow& s, const char* where, u64 offset) {
  if (s.under_way) fail("reads %s at byte %llu while it is copied to", where, offset);
  if (s.writer >= 0 && !ordered(s.writer, s.writer_block, s.write_epoch, s.write_warp_epoch)) {
    fail("reads %s at byte %llu, which thread %d of CTA %d writes, with no barrier between", where,
         offset, s.writer, s.writer_block);
  }
  if (s.reader < 0 || (s.reader_block == block && s.read_epoch != epoch)) {
    s.several_warps = s.several_lanes = s.several_blocks = false;
  } else {
    s.several_blocks |= s.reader_block != block;
    s.several_warps |= s.reader / 32 != now / 32;
    if (s.reader / 32 == now / 32 && s.read_warp_epoch != warp_epochs[now / 32]) {
      s.several_lanes = false;
    } else {
      s.several_lanes |= s.reader != now;
    }
  }
  s.reader = now;
  s.reader_block = block;
  s.read_epoch = epoch;
  s.read_warp_epoch = warp_epochs[now / 32];
}

void note_write(Shadow& s, const char* where, u64 offset, bool under_way = false) {
  if (s.under_way) fail("writes %s at byte %llu while it is copied to", where, offset);
  if (s.writer >= 0 && !ordered(s.writer, s.writer_block, s.write_epoch, s.write_warp_epoch)) {
    fail("writes %s at byte %llu, which thread %d of CTA %d writes, with no barrier between", where,
         offset, s.writer, s.writer_block);
  }
  if (s.reader >= 0) {
    bool safe = ordered(s.reader, s.reader_block, s.read_epoch, s.read_warp_epoch);
    if (s.several_blocks) safe = false;
    if (s.reader_block == block && s.read_epoch == epoch && s.several_warps) safe = false;
    if (s.reader_block == block && s.read_warp_epoch == warp_epochs[now / 32] &&
        s.read_epoch == epoch && s.several_lanes) {
      safe = false;
    }
    if (!safe) {
      fail("writes %s at byte %llu, which thread %d of CTA %d reads, with no barrier between",
           where, offset, s.reader, s.reader_block);
    }
  }
  s.writer = now;
  s.writer_block = block;
  s.write_epoch = epoch;
  s.write_warp_epoch = warp_epochs[now / 32];
  s.under_way = under_way;
}

bool within(u64 at, u32 bytes, u64 begin, u64 end) { return at >= begin && at + bytes <= end; }

const Buffer* buffer_at(u64 at, u32 bytes) {
  static size_t last = 0;
  auto fits = [&](size_t i) {
    return within(at, bytes, buffers[i].range.begin, buffers[i].range.end);
  };
  if (last < buffers.size() && fits(last)) return &buffers[last];
  for (size_t i = 0; i < buffers.size(); i++) {
    if (fits(i)) return &buffers[last = i];
  }
  return nullptr;
}

[[noreturn]] void fail_outside(u64 at, u32 bytes, const char* what) {
  const Range* nearest = nullptr;
  for (const Buffer& b : buffers) {
    if (b.range.begin <= at && (!nearest || b.range.begin > nearest->begin)) nearest = &b.range;
  }
  if (!nearest) fail("%s %u bytes at %llx, outside all buffers", what, bytes, at);
  fail("%s %u bytes outside all buffers, at byte %llu of %s, which has %llu", what, bytes,
       at - nearest->begin, nearest->name, nearest->end - nearest->begin);
}

void check_aligned(u64 at, u32 bytes, const char* what) {
  if ((bytes & (bytes - 1)) == 0 && bytes <= 16 && at % bytes) {
    fail("%s %u bytes at an address that is no multiple of it", what, bytes);
  }
}

const Buffer& readable(u64 at, u32 bytes, bool constant) {
  check_aligned(at, bytes, "reads");
  const Buffer* b = buffer_at(at, bytes);
  if (!b) fail_outside(at, bytes, "reads");
  if (constant && b->range.kind != READ_ONLY) fail("reads %s as a constant", b->range.name);
  if (b->range.kind == AFTER_PREVIOUS && !fibers[now].after_previous) {
    fail("reads %s before the kernel before has ended", b->range.name);
  }
  return *b;
}

void check_global_read(u64 at, u32 bytes, bool constant) {
  const Buffer& b = readable(at, bytes, constant);
  if (b.range.kind == READ_ONLY) return;
  const u64 offset = at - b.range.begin;
  for (u64 i = offset / UNIT; i < (offset + bytes + UNIT - 1) / UNIT; i++) {
    note_read(b.shadow[i], b.range.name, i * UNIT);
  }
}

void check_global_write(u64 at, u32 bytes) {
  check_aligned(at, bytes, "writes");
  const Buffer* b = buffer_at(at, bytes);
  if (!b) fail_outside(at, bytes, "writes");
  if (b->range.kind == READ_ONLY) fail("writes %s, which is constant", b->range.name);
  if (!fibers[now].after_previous) {
    fail("writes %s before the kernel before has ended", b->range.name);
  }
  const u64 offset = at - b->range.begin;
  for (u64 i = offset / UNIT; i < (offset + bytes + UNIT - 1) / UNIT; i++) {
    note_write(b->shadow[i], b->range.name, i * UNIT);
  }
}

bool in_shared(u64 at, u32 bytes) {
  return within(at, bytes, (u64)shared, (u64)shared + shared_size);
}

void check_shared(u64 at, u32 bytes, bool write, bool under_way = false) {
  check_aligned(at, bytes, "accesses");
  const u64 offset = at - (u64)shared;
  for (u64 i = offset / UNIT; i < (offset + bytes + UNIT - 1) / UNIT; i++) {
    Shadow& s = shared_shadow[i];
    if (write) {
      note_write(s, "shared memory", i * UNIT, under_way);
    } else {
      if (s.writer < 0) fail("reads shared memory at byte %llu, which has no value", i * UNIT);
      note_read(s, "shared memory", i * UNIT);
    }
  }
}

extern "C" const char __ehdr_start[] __attribute__((visibility("hidden")));
extern "C" const char _end[] __attribute__((visibility("hidden")));

void check_access(const void* address, u32 bytes, bool write) {
  const u64 at = (u64)address, stack = (u64)(stacks + (u64)now * STACK);
  if (within(at, bytes, stack, stack + STACK)) return;  // a local variable
  if (in_shared(at, bytes)) return check_shared(at, bytes, write);
  if (!write && within(at, bytes, (u64)__ehdr_start, (u64)_end)) return;  // a constant
  if (write) return check_global_write(at, bytes);
  check_global_read(at, bytes, false);
}

// What another thread writes meanwhile arrives as NaN: no fault, if the kernel does not use it.
void perform(const Copy& copy) {
  memcpy(copy.to, copy.from, copy.bytes);
  const Buffer* b = buffer_at((u64)copy.from, copy.bytes);
  if (b->range.kind == READ_ONLY) return;
  const u64 first = ((u64)copy.from - b->range.begin) / UNIT;
  for (u64 i = 0; i < copy.bytes / UNIT; i++) {
    const Shadow& s = b->shadow[first + i];
    if (s.writer < 0 || ordered(s.writer, s.writer_block, s.write_epoch, s.write_warp_epoch)) {
      continue;
    }
    memset((char*)copy.to + i * UNIT, 0xff, UNIT);
  }
}

void end_copy(const Copy& copy) {
  if (late) perform(copy);
  const u64 offset = (u64)copy.to - (u64)shared;
  for (u64 i = offset / UNIT; i < (offset + copy.bytes) / UNIT; i++) {
    Shadow& s = shared_shadow[i];
    s.under_way = false;
    s.write_epoch = epoch;
    s.write_warp_epoch = warp_epochs[now / 32];
  }
}

// A set of slots in which the lanes of a warp show each other values. Valid until the lane's
// exchange after the next.
u32 (*exchange(const u32* values, int count, Exchange kind))[6] {
  const u32 set = fibers[now].exchanges++ & 1;
  memcpy(slots[set][now], values, 4 * count);
  fibers[now].exchange = kind;
  pause(AT_EXCHANGE);
  return slots[set];
}

bool all_wait(int first, int last, Wait why) {
  for (int i = first; i < last; i++) {
    if (fibers[i].wait != why) return false;
  }
  return true;
}

void run(int thread) {
  now = thread;
  emulation_switch(&scheduler, fibers[now].stack_pointer);
}

bool run_warp(int warp) {
  int order[32];
  for (int i = 0; i < 32; i++) order[i] = i;
  for (int i = 31; i > 0; i--) std::swap(order[i], order[random() % (i + 1)]);
  bool ran = false;
  const int first = 32 * warp;
  for (int lane : order) {
    if (fibers[first + lane].wait != RUNNABLE) continue;
    run(first + lane);
    if (*fault) return true;
    ran = true;
  }
  if (!ran) return false;
  const Fiber& one = fibers[first];
  for (int i = first; i < first + 32; i++) {
    const Fiber& other = fibers[i];
    if (other.wait != one.wait || (one.wait == AT_EXCHANGE && other.exchange != one.exchange)) {
      snprintf(fault, sizeof fault, "CTA %d: threads %d and %d of a warp are at different places",
               block, first, i);
      return true;
    }
  }
  if (one.wait == AT_EXCHANGE) {
    if (one.exchange == SYNC) warp_epochs[warp]++;
    for (int i = first; i < first + 32; i++) fibers[i].wait = RUNNABLE;
  }
  return true;
}

void run_block() {
  memset(shared, 0xff, shared_size);
  shared_shadow.assign(shared_size / UNIT + 8, {});
  epoch = 0;
  std::fill_n(warp_epochs, MOST_THREADS / 32, 0);
  known.clear();
  arrived.clear();
  for (int i = 0; i < threads; i++) {
    Fiber& fiber = fibers[i];
    fiber.wait = RUNNABLE;
    fiber.after_previous = false;
    fiber.exchanges = 0;
    fiber.groups.clear();
    fiber.open.clear();
    fiber.stack_pointer = prepared_stack(stacks + (u64)i * STACK, enter);
  }
  const int warps = threads / 32;
  int favourite = random() % warps;  // runs ahead; the others move when it waits, or now and then
  while (!*fault && !all_wait(0, threads, DONE)) {
    bool ran = run_warp(random() % 4 ? favourite : random() % warps);
    if (!ran) {
      favourite = random() % warps;
      for (int i = 0; i < warps && !ran; i++) ran = run_warp((favourite + i) % warps);
    }
    if (*fault) return;
    if (all_wait(0, threads, AT_BARRIER)) {
      epoch++;
      for (int i = 0; i < warps; i++) warp_epochs[i]++;
      for (const auto& [other, release] : arrived) known[other] = release;
      arrived.clear();
      for (int i = 0; i < threads; i++) fibers[i].wait = RUNNABLE;
    } else if (!ran && !all_wait(0, threads, DONE)) {
      snprintf(fault, sizeof fault, "CTA %d: threads wait for a barrier that others never reach",
               block);
    }
  }
  for (int i = 0; i < threads && !*fault; i++) {
    bool copies = !fibers[i].open.empty();
    for (const auto& group : fibers[i].groups) copies |= !group.empty();
    if (copies) snprintf(fault, sizeof fault, "CTA %d ends with copies under way", block);
  }
}

}  // namespace

Index thread_index() { return {(u32)now, 0, 0}; }
Index block_index() {
  return {block % grid.x, block / grid.x % grid.y, block / (grid.x * grid.y)};
}
Index grid_size() { return grid; }
unsigned char* shared_memory() { return shared; }

void load(void* to, const void* from, u32 bytes, Load kind) {
  check_global_read((u64)from, bytes, kind == CONSTANT);
  memcpy(to, from, bytes);
}

void copy(void* to, const void* from, u32 bytes) {
  readable((u64)from, bytes, false);
  if (!in_shared((u64)to, bytes)) fail("copies %u bytes to outside shared memory", bytes);
  check_shared((u64)to, bytes, true, true);
  fibers[now].open.push_back({to, from, bytes});
  if (!late) perform(fibers[now].open.back());
}

void close_group() {
  Fiber& fiber = fibers[now];
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}

void wait_for_groups(u32 most) {
  auto& groups = fibers[now].groups;
  while (groups.size() > most) {
    for (const Copy& copy : groups.front()) end_copy(copy);
    groups.pop_front();
  }
}

void let_next_start() {}
void wait_for_previous() { fibers[now].after_previous = true; }

u32 arrive(u32* counter, u32 count) {
  const Buffer* b = buffer_at((u64)counter, 4);
  if (!b) fail_outside((u64)counter, 4, "counts");
  if (!fibers[now].after_previous) fail("counts before the kernel before has ended");
  Knowledge& knowledge = counters[counter];
  knowledge[block] = {epoch, now};
  for (const auto& [other, release] : knowledge) arrived[other] = release;
  const u32 before = *counter;
  *counter = before >= count - 1 ? 0 : before + 1;
  return before;
}

u32 shuffle(u32 value, u32 mask) { return exchange(&value, 1, SHUFFLE)[now ^ mask][0]; }

// PTX ISA, "Matrix Fragments for mma.m16n8k16", lane = 4 g + t. A: rows g and g+8 of columns 2t..,
// then of 2t+8..; B: rows 2t.. and 2t+8.. of column g; D: columns 2t, 2t+1 of row g, then of row
// g+8.
void multiply(float (&d)[4], const u32 (&fragments)[6]) {
  const int base = now & ~31, g = (now & 31) >> 2, t = now & 3;
  auto lanes = exchange(fragments, 6, MMA) + base;
  for (int column = 0; column < 2; column++) {
    float b[16];
    for (int k = 0; k < 16; k++) {
      const u32 pair = lanes[4 * (2 * t + column) + ((k & 7) >> 1)][4 + (k >> 3)];
      b[k] = halves[(u16)(pair >> (16 * (k & 1)))];
    }
    for (int below = 0; below < 2; below++) {
      double sum = d[2 * below + column];
      for (int k = 0; k < 16; k++) {
        const u32 pair = lanes[4 * g + ((k & 7) >> 1)][below + 2 * (k >> 3)];
        sum += (double)halves[(u16)(pair >> (16 * (k & 1)))] * b[k];
      }
      d[2 * below + column] = (float)sum;
    }
  }
}

// ldmatrix: lane i gives row i % 8 of matrix i / 8; lane 4 g + t gets elements 2t, 2t+1 of row g of
// each; transposed, those of column g.
void matrices(u32 (&m)[4], const void* row, bool transposed) {
  const u64 at = (u64)row;
  if (!in_shared(at, 16)) fail("loads a matrix from outside shared memory");
  check_shared(at, 16, false);
  u32 values[4];
  memcpy(values, row, 16);
  const int base = now & ~31, g = (now & 31) >> 2, t = now & 3;
  auto lanes = exchange(values, 4, transposed ? TRANSPOSED : MATRICES) + base;
  for (int i = 0; i < 4; i++) {
    if (!transposed) {
      m[i] = lanes[8 * i + g][t];
      continue;
    }
    const u32 first = lanes[8 * i + 2 * t][g / 2] >> (16 * (g & 1));
    const u32 second = lanes[8 * i + 2 * t + 1][g / 2] >> (16 * (g & 1));
    m[i] = (first & 0xffff) | second << 16;
  }
}

void barrier() { pause(AT_BARRIER); }

void warp_barrier() {
  const u32 nothing = 0;
  exchange(&nothing, 1, SYNC);
}

float from_half(u16 bits) { return halves[bits]; }

u16 to_half(float value) {
  const _Float16 half = (_Float16)value;
  u16 bits;
  memcpy(&bits, &half, 2);
  return bits;
}

float exp2(float value) { return std::exp2(value); }
float exp(float value) { return std::exp(value); }
float square_root(float value) { return std::sqrt(value); }
float nearest(float value) { return std::rint(value); }

// __byte_perm: each nibble of the selector names one of the 8 bytes of b:a.
u32 permute(u32 a, u32 b, u32 selector) {
  const u64 bytes = (u64)b << 32 | a;
  u32 result = 0;
  for (int i = 0; i < 4; i++) {
    result |= (u32)(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  }
  return result;
}

// Runs a grid. Returns what went wrong, empty if nothing did.
const char* run_grid(const u32* size, int cta_threads, u64 shared_bytes, const Range* ranges,
                     int count, u32 seed, bool copies_late, void (*kernel)()) {
  if (!stacks) {
    stacks = (char*)mmap(nullptr, (u64)MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < 1 << 16; i++) {
      const u16 bits = i;
      _Float16 half;
      memcpy(&half, &bits, 2);
      halves[i] = (float)half;
    }
  }
  *fault = 0;
  grid = {size[0], size[1], size[2]};
  threads = cta_threads;
  late = copies_late;
  state = seed * 2654435761u + 12345;
  body = kernel;
  shared_size = shared_bytes;
  shared = (unsigned char*)aligned_alloc(128, (shared_bytes + 255) / 128 * 128);
  counters.clear();
  buffers.clear();
  for (int i = 0; i < count; i++) {
    const u64 units = (ranges[i].end - ranges[i].begin) / UNIT + 1;
    Shadow* shadow = nullptr;
    if (ranges[i].kind != READ_ONLY) {
      shadow = (Shadow*)malloc(units * sizeof *shadow);
      std::fill_n(shadow, units, Shadow{});
    }
    buffers.push_back({ranges[i], shadow});
  }
  std::vector<int> order(grid.x * grid.y * grid.z);
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  for (size_t i = order.size() - 1; i > 0; i--) std::swap(order[i], order[random() % (i + 1)]);
  for (size_t i = 0; i < order.size() && !*fault; i++) {
    block = order[i];
    run_block();
  }
  for (Buffer& b : buffers) free(b.shadow);
  free(shared);
  return fault;
}

}  // namespace emulation

// What -fsanitize=thread calls before each access.
#define ACCESS(bytes)                                                                      \
  void __tsan_read##bytes(void* p) { emulation::check_access(p, bytes, false); }           \
  void __tsan_write##bytes(void* p) { emulation::check_access(p, bytes, true); }           \
  void __tsan_unaligned_read##bytes(void* p) { emulation::check_access(p, bytes, false); } \
  void __tsan_unaligned_write##bytes(void* p) { emulation::check_access(p, bytes, true); }
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* p, unsigned long n) { emulation::check_access(p, n, false); }
void __tsan_write_range(void* p, unsigned long n) { emulation::check_access(p, n, true); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void* __tsan_memcpy(void* to, const void* from, unsigned long n) {
  emulation::check_access(from, n, false);
  emulation::check_access(to, n, true);
  return memcpy(to, from, n);
}
void* __tsan_memset(void* to, int value, unsigned long n) {
  emulation::check_access(to, n, true);
  return memset(to, value, n);
}
}
