// A cache of bytes: keys and values [capacity][HEAD], a number x of a position as x / scale + 128,
// with one fp16 scale a position for keys and one for values, side by side.
//
// A byte is multiplied as a fp16 subnormal, q * 2^-24, like a weight of 8 bits: see blocks.cuh. The
// 128 goes into two sums: 128 * sum(query) is taken from a score, 128 * sum(weight * scale) from the
// output. A position's scale applies to its scores, and to its weights.
//
// A word of four bytes gives two pairs, (0,2) and (1,3). So the order of elements within 16 of a
// query, and of positions within 16, is what suits that: products do not depend on it.
#pragma once

constexpr int CHUNKS = HEAD / 16;  // 16 bytes each, of a key
constexpr float SUBNORMAL = 5.9604645e-8f;  // 2^-24
constexpr float MIDDLE = 128;
// Of a weight times a scale, before it is rounded to fp16: keeps digits of small ones, as beside an
// attention sink. The largest scale is 65504 / 127, so the product stays below fp16's largest.
constexpr float LIFT = 64;

struct KeysValues {
  uint4 keys[KEYS * CHUNKS];
  uint4 values[KEYS * CHUNKS];
  u32 scales[KEYS];  // of keys, low, and of values, high
};

__device__ __forceinline__ HeadCache head_cache_of(const Attention& p, int slot, int kv_head) {
  const u64 offset = (u64)(slot * p.kv_heads + kv_head) * p.capacity;
  return {(u16*)((unsigned char*)p.keys + offset * HEAD),
          (u16*)((unsigned char*)p.values + offset * HEAD), p.scales + offset};
}

// The element of a head that d[e] of `mma` is about, in the c-th product.
__device__ __forceinline__ int element(int c, int t, int e) {
  return c / 4 * 32 + 8 * t + 4 * e + c % 4;
}

// The position of column n of the h-th product of scores.
__device__ __forceinline__ int key_of(int h, int n) { return 2 * n + h; }

// Where chunk c of a position lies, so that lanes read from different banks.
__device__ __forceinline__ int place(int key, int c) {
  return key * CHUNKS + (c ^ (key >> 1 & (CHUNKS - 1)));
}

__device__ __forceinline__ u32 word_of(const uint4* chunks, int key, int number) {
  return ((const u32*)&chunks[place(key, number / 4)])[number % 4];
}

__device__ __forceinline__ void copy_keys(KeysValues& to, const HeadCache& cache, int start,
                                          int end, int lane) {
  const unsigned char* keys = (const unsigned char*)cache.keys;
  const unsigned char* values = (const unsigned char*)cache.values;
  for (int at = lane; at < KEYS * CHUNKS; at += 32) {
    const int key = at / CHUNKS, c = at % CHUNKS;
    const u64 from = (u64)min(start + key, end - 1) * HEAD + c * 16;
    copy_async<16>(&to.keys[place(key, c)], keys + from);
    copy_async<16>(&to.values[place(key, c)], values + from);
  }
  if (lane < KEYS) copy_async<4>(&to.scales[lane], cache.scales + min(start + lane, end - 1));
}

// Queries of a 16 x HEAD tile, rotated. A lane has both elements that are turned together.
__device__ __forceinline__ Queries load_queries(const Attention& p, int first, int rows, int start,
                                                int kv_head, int tile, int lane) {
  const int g = lane >> 2, t = lane & 3;
  Queries out;
#pragma unroll
  for (int below = 0; below < 2; below++) {
    const int query = tile * 16 + below * 8 + g, row = query / GROUP;
    const int head = kv_head * GROUP + query % GROUP;
    const u64 width = (u64)(p.heads + 2 * p.kv_heads) * HEAD;
    const u16* from = p.qkv + (first + row) * width + head * HEAD;
    const u64 angle = (u64)(start + row) * (HEAD / 2);
    float sum = 0;
#pragma unroll
    for (int step = 0; step < STEPS / 2; step++) {
      float x[4] = {}, y[4] = {};
      if (row < rows) {
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
          const int d = step * 16 + 4 * t + 2 * pair;
          const u32 a = load_written((const u32*)(from + d));
          const u32 b = load_written((const u32*)(from + d + HEAD / 2));
          const u32 c = load_constant((const u32*)(p.cosines + angle + d));
          const u32 s = load_constant((const u32*)(p.sines + angle + d));
          x[2 * pair] = low(a), x[2 * pair + 1] = high(a);
          y[2 * pair] = low(b), y[2 * pair + 1] = high(b);
          rotate(x[2 * pair], y[2 * pair], low(c), low(s));
          rotate(x[2 * pair + 1], y[2 * pair + 1], high(c), high(s));
        }
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        sum += to_float(to_half(x[i])) + to_float(to_half(y[i]));  // of what is multiplied
      }
#pragma unroll
      for (int part = 0; part < 2; part++) {
        out.q[step][part * 2 + below] = pack(x[part], x[part + 2]);
        out.q[step + STEPS / 2][part * 2 + below] = pack(y[part], y[part + 2]);
      }
    }
    out.bias[below] = MIDDLE * SUBNORMAL * sum_over<4>(sum);
  }
  return out;
}

// Rounds four numbers of a lane to bytes of a position's scale: the largest of all is 127 of them.
__device__ __forceinline__ u16 quantize(const float (&x)[4], u32& bytes) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) largest = fmaxf(largest, fabsf(x[i]));
#pragma unroll
  for (int o = 16; o; o >>= 1) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, o));
  const u16 scale = to_half(fmaxf(largest / 127, 6.2e-5f));  // so that fp16 keeps its digits
  bytes = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float steps = fminf(fmaxf(rintf(x[i] / to_float(scale)), -127.f), 127.f);
    bytes |= (u32)(int)(steps + MIDDLE) << (8 * i);
  }
  return scale;
}

// Elements d, d + 1, d + HEAD / 2 and d + HEAD / 2 + 1 of a position.
__device__ __forceinline__ void put_bytes(void* chunks, int key, int d, u32 bytes) {
  for (int half = 0; half < 2; half++, d += HEAD / 2, bytes >>= 16) {
    ((u16*)chunks)[place(key, d / 16) * 8 + d % 16 / 2] = (u16)bytes;
  }
}

__device__ __forceinline__ void put_cache(u16* rows, int position, int d, u32 bytes) {
  rows[(u64)position * (HEAD / 2) + d / 2] = (u16)bytes;
  rows[(u64)position * (HEAD / 2) + d / 2 + HEAD / 4] = (u16)(bytes >> 16);
}

__device__ __forceinline__ void put_pairs(u16* to, const float (&x)[4]) {
  *(u32*)to = pack(x[0], x[1]);
  *(u32*)(to + HEAD / 2) = pack(x[2], x[3]);
}

// Keys and values of this step's rows: into `fresh`, and into the cache. A warp a row, four elements
// a lane.
__device__ __forceinline__ void append(KeysValues& fresh, const Attention& p,
                                       const HeadCache& cache, int slot, int first, int rows,
                                       int start, int kv_head, bool writes) {
  constexpr int MOST_PASSES = (ROWS + WARPS - 1) / WARPS;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, d = 2 * lane;
  const bool has = d < HEAD / 2;
  const u64 width = (u64)(p.heads + 2 * p.kv_heads) * HEAD;
  u32 x[MOST_PASSES][2], v[MOST_PASSES][2];  // all are loaded before the first is used
#pragma unroll
  for (int pass = 0; pass < MOST_PASSES; pass++) {
    const int row = pass * WARPS + warp;
    if (row >= rows || !has) continue;
    const u16* from = p.qkv + (first + row) * width + (p.heads + kv_head) * HEAD + d;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      x[pass][half] = load_written((const u32*)(from + half * (HEAD / 2)));
      v[pass][half] = load_written((const u32*)(from + p.kv_heads * HEAD + half * (HEAD / 2)));
    }
  }
#pragma unroll
  for (int pass = 0; pass < MOST_PASSES; pass++) {
    const int row = pass * WARPS + warp;
    if (row >= rows) break;
    float key[4] = {}, value[4] = {};
    if (has) {
      const u64 angle = (u64)(start + row) * (HEAD / 2) + d;
      const u32 c = load_constant((const u32*)(p.cosines + angle));
      const u32 s = load_constant((const u32*)(p.sines + angle));
#pragma unroll
      for (int half = 0; half < 2; half++) {
        key[2 * half] = low(x[pass][half]), key[2 * half + 1] = high(x[pass][half]);
        value[2 * half] = low(v[pass][half]), value[2 * half + 1] = high(v[pass][half]);
      }
      rotate(key[0], key[2], low(c), low(s));
      rotate(key[1], key[3], high(c), high(s));
    }
    u32 keys, values;
    const u16 key_scale = quantize(key, keys), value_scale = quantize(value, values);
    const u32 scales = (u32)key_scale | (u32)value_scale << 16;
    if (has) {
      put_bytes(fresh.keys, row, d, keys);
      put_bytes(fresh.values, row, d, values);
    }
    if (lane == 0) fresh.scales[row] = scales;
    if (!writes) continue;
    if (has) {
      put_cache(cache.keys, start + row, d, keys);
      put_cache(cache.values, start + row, d, values);
    }
    if (lane == 0) cache.scales[start + row] = scales;
    if (p.copied_keys && has) {
      const u64 at = (u64)(slot * p.kv_heads + kv_head) * p.capacity + start + row;
      put_pairs(p.copied_keys + at * HEAD + d, key);
      put_pairs(p.copied_values + at * HEAD + d, value);
    }
  }
  // Rows after them count for nothing, and must be numbers.
  for (int row = rows + warp; row < KEYS; row += WARPS) {
    if (has) {
      put_bytes(fresh.keys, row, d, 0);
      put_bytes(fresh.values, row, d, 0);
    }
    if (lane == 0) fresh.scales[row] = 0;
  }
}

// Four words, of positions, to four words, of their bytes.
__device__ __forceinline__ void transpose(u32 (&w)[4]) {
  const u32 a = permute(w[0], w[1], 0x5140), b = permute(w[2], w[3], 0x5140);
  const u32 c = permute(w[0], w[1], 0x7362), d = permute(w[2], w[3], 0x7362);
  w[0] = permute(a, b, 0x5410);
  w[1] = permute(a, b, 0x7632);
  w[2] = permute(c, d, 0x5410);
  w[3] = permute(c, d, 0x7632);
}

// Adds 16 positions. `limit[i]`: positions from there on do not count, for rows g and g + 8.
__device__ __forceinline__ void add_keys(Sums& sums, const Queries& queries, const KeysValues& kv,
                                         const int (&limit)[2], float scale, int lane) {
  const int g = lane >> 2, t = lane & 3;
  const auto& q = queries.q;
  float s[2][4] = {};
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const u32 k = word_of(kv.keys, key_of(h, g), 4 * step + t);
      mma(s[h], q[step][0], q[step][1], q[step][2], q[step][3], k & 0x00ff00ffu,
          (k >> 8) & 0x00ff00ffu);
    }
  }
  u32 weights[4];
#pragma unroll
  for (int below = 0; below < 2; below++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int key = key_of(i >> 1, 2 * t + (i & 1));
      float& score = s[i >> 1][below * 2 + (i & 1)];
      const float unit = scale / SUBNORMAL * low(kv.scales[key]);
      score = key < limit[below] ? (score - queries.bias[below]) * unit : -infinity();
    }
    weigh(sums, s, below);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float scaled[2];
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const int key = key_of(h, 2 * t + e);
        // Not 0 * scale: a scale past the end may not be a number.
        const float weight = s[h][below * 2 + e] * LIFT * high(kv.scales[key]);
        scaled[e] = to_float(to_half(key < limit[below] ? weight : 0));
        sums.bias[below] += scaled[e];
      }
      weights[h * 2 + below] = pack(scaled[0], scaled[1]);
    }
  }
#pragma unroll
  for (int c = 0; c < HEAD / 32; c++) {
    u32 v[4];  // 4 elements of positions 4 t .. 4 t + 3, then these positions of each element
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = word_of(kv.values, 4 * t + i, 8 * c + g);
    transpose(v);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      mma(sums.o[c * 4 + i], weights[0], weights[1], weights[2], weights[3], v[i] & 0x00ff00ffu,
          (v[i] >> 8) & 0x00ff00ffu);
    }
  }
}

// Takes the 128 from the sums, and gives them their unit.
__device__ __forceinline__ void finish(Sums& sums) {
#pragma unroll
  for (int below = 0; below < 2; below++) {
    const float bias = MIDDLE * SUBNORMAL * sum_over<4>(sums.bias[below]);
#pragma unroll
    for (int c = 0; c < HEAD / 8; c++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float& o = sums.o[c][below * 2 + e];
        o = (o - bias) / (LIFT * SUBNORMAL);
      }
    }
  }
}
