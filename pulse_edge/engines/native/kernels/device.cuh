// What the kernels use of a GPU: loads, copies, tensor cores, programmatic launch.
//
// Tests compile the kernels for the CPU, with functions of the same names from
// tests/support/cuda_emulation.h in place of this file.
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]

__device__ __forceinline__ float to_float(u16 half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}

__device__ __forceinline__ u16 to_half(float value) {
  u16 half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// Four bytes of the eight of a and b: nibble i of the selector says which is byte i.
__device__ __forceinline__ u32 permute(u32 a, u32 b, u32 selector) {
  return __byte_perm(a, b, selector);
}

// d += a b for a [16][16] and b [16][8] of fp16; lane 4 g + t holds a[g][2t..], a[g+8][2t..],
// a[g][2t+8..], a[g+8][2t+8..]; b[2t..][g], b[2t+8..][g]; d[g][2t..], d[g+8][2t..].
__device__ __forceinline__ void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a2), "r"(a3), "r"(b1));
#endif
}

__device__ __forceinline__ u32 shared_address(const void* p) {
  return (u32)__cvta_generic_to_shared(p);
}

// Four 8 x 8 matrices of fp16 from shared memory. Lane i gives the address of row i % 8 of matrix
// i / 8; lane 4 g + t receives elements 2t, 2t+1 of row g of each matrix.
__device__ __forceinline__ void load_matrices(u32 (&m)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(row)) : "memory");
}

// The same, transposed: lane 4 g + t receives rows 2t, 2t+1 of column g.
__device__ __forceinline__ void load_transposed(u32 (&m)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(row)) : "memory");
}

// Constants of the model. May be read before wait_for_previous_kernel.
template <class T>
__device__ __forceinline__ T load_constant(const T* from) {
  return __ldg(from);
}

// What kernels write. From L2, which all multiprocessors share; never moved above
// wait_for_previous_kernel.
__device__ __forceinline__ uint4 load_written(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from) : "memory");
  return v;
}

__device__ __forceinline__ float4 load_written(const float4* from) {
  float4 v;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(from) : "memory");
  return v;
}

__device__ __forceinline__ u32 load_written(const u32* from) {
  u32 v;
  asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
  return v;
}

__device__ __forceinline__ float load_written(const float* from) {
  float v;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(from) : "memory");
  return v;
}

__device__ __forceinline__ u16 load_written(const u16* from) {
  u16 v;
  asm volatile("ld.global.cg.u16 %0, [%1];" : "=h"(v) : "l"(from) : "memory");
  return v;
}

// Asynchronous copies from global to shared memory, in groups. Before sm_80 they are done at once.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  if (BYTES == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
                 :: "r"(shared_address(to)), "l"(from) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                 :: "r"(shared_address(to)), "l"(from), "n"(BYTES) : "memory");
  }
#else
  if (BYTES == 16) *(uint4*)to = __ldcg((const uint4*)from);
  if (BYTES == 8) *(uint2*)to = __ldcg((const uint2*)from);
  if (BYTES == 4) *(u32*)to = __ldcg((const u32*)from);
#endif
}

__device__ __forceinline__ void close_copy_group() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Returns when at most GROUPS of this thread's copy groups are under way.
template <int GROUPS>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" :: "n"(GROUPS) : "memory");
#endif
}

// Programmatic dependent launch. Both are no-ops for a kernel that was launched without that
// attribute.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Returns when all kernels before have ended. Every kernel calls it, so that this holds through a
// chain of kernels.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Counts arrivals of CTAs, 0 to count - 1 and round again. What a CTA wrote before its arrival is
// visible to the CTA that is told count - 1.
__device__ __forceinline__ u32 arrive(u32* counter, u32 count) {
  __threadfence();
  const u32 before = atomicInc(counter, count - 1);
  __threadfence();
  return before;
}
