// CUDA on one CPU thread, as much as the kernels of pulse_edge/engines/native/kernels use: what
// device.cuh declares, for a C++ compiler. cuda_emulation.cpp does the work and explains it.
#pragma once

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define SHARED_MEMORY(name) unsigned char* name = emulation::shared_memory()
#define threadIdx (emulation::thread_index())
#define blockIdx (emulation::block_index())
#define gridDim (emulation::grid_size())

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(8) uint2 {
  u32 x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  u32 x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulation {

struct Index {
  u32 x, y, z;
};
enum Load { CONSTANT, WRITTEN };
enum Exchange { SHUFFLE, MMA, MATRICES, TRANSPOSED, SYNC };

struct Range {  // a buffer
  u64 begin, end;
  int kind;
  const char* name;
};

const char* run_grid(const u32* size, int cta_threads, u64 shared_bytes, const Range* ranges,
                     int count, u32 seed, bool copies_late, void (*kernel)());
Index thread_index();
Index block_index();
Index grid_size();
unsigned char* shared_memory();
void load(void* to, const void* from, u32 bytes, Load kind);
void copy(void* to, const void* from, u32 bytes);
void close_group();
void wait_for_groups(u32 most);
void wait_for_previous();
void let_next_start();
u32 arrive(u32* counter, u32 count);
u32 shuffle(u32 value, u32 mask);
void multiply(float (&d)[4], const u32 (&fragments)[6]);
void matrices(u32 (&m)[4], const void* row, bool transposed);
void barrier();
void warp_barrier();
float from_half(u16 bits);
u16 to_half(float value);
float exp2(float value);
float exp(float value);
float square_root(float value);
float nearest(float value);
u32 permute(u32 a, u32 b, u32 selector);

template <class T>
T loaded(const T* from, Load kind) {
  T value;
  load(&value, from, sizeof value, kind);
  return value;
}

}  // namespace emulation

#ifdef EMULATED  // a kernel: cuda_emulation.cpp has other functions of these names

template <class T>
inline T min(T a, T b) { return a < b ? a : b; }
template <class T>
inline T max(T a, T b) { return a > b ? a : b; }
inline float fmaxf(float a, float b) { return a != a ? b : b != b ? a : a > b ? a : b; }
inline float fminf(float a, float b) { return -fmaxf(-a, -b); }
inline float fabsf(float value) { return __builtin_fabsf(value); }
inline float rintf(float value) { return emulation::nearest(value); }
inline float infinity() { return __builtin_inff(); }
inline float exp2f(float value) { return emulation::exp2(value); }
inline float __expf(float value) { return emulation::exp(value); }
inline float rsqrtf(float value) { return 1 / emulation::square_root(value); }
inline float to_float(u16 half) { return emulation::from_half(half); }
inline u16 to_half(float value) { return emulation::to_half(value); }

inline u32 permute(u32 a, u32 b, u32 selector) { return emulation::permute(a, b, selector); }

inline void __syncthreads() { emulation::barrier(); }
inline void __syncwarp() { emulation::warp_barrier(); }
inline void __threadfence() {}  // CTAs run one after the other; `arrive` has a fence of its own

inline float __shfl_xor_sync(u32, float value, int mask) {
  u32 bits;
  __builtin_memcpy(&bits, &value, 4);
  bits = emulation::shuffle(bits, mask);
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
inline int __shfl_xor_sync(u32, int value, int mask) {
  return (int)emulation::shuffle((u32)value, mask);
}
inline u32 __shfl_xor_sync(u32, u32 value, int mask) { return emulation::shuffle(value, mask); }

inline void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  const u32 fragments[6] = {a0, a1, a2, a3, b0, b1};
  emulation::multiply(d, fragments);
}
inline void load_matrices(u32 (&m)[4], const void* row) { emulation::matrices(m, row, false); }
inline void load_transposed(u32 (&m)[4], const void* row) { emulation::matrices(m, row, true); }

template <class T>
inline T load_constant(const T* from) { return emulation::loaded(from, emulation::CONSTANT); }
template <class T>
inline T load_written(const T* from) { return emulation::loaded(from, emulation::WRITTEN); }

template <int BYTES>
inline void copy_async(void* to, const void* from) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
  emulation::copy(to, from, BYTES);
}
inline void close_copy_group() { emulation::close_group(); }
template <int GROUPS>
inline void wait_for_copies() { emulation::wait_for_groups(GROUPS); }
inline void let_next_kernel_start() { emulation::let_next_start(); }
inline void wait_for_previous_kernel() { emulation::wait_for_previous(); }
inline u32 arrive(u32* counter, u32 count) { return emulation::arrive(counter, count); }
#endif
