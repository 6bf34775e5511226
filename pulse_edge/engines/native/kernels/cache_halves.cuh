// A cache of fp16: keys and values [capacity][HEAD].
#pragma once

constexpr int CHUNKS = HEAD / 8;  // 16 bytes each, of a key

struct KeysValues {
  uint4 keys[KEYS * CHUNKS];
  uint4 values[KEYS * CHUNKS];
};

__device__ __forceinline__ HeadCache head_cache_of(const Attention& p, int slot, int kv_head) {
  const u64 offset = (u64)(slot * p.kv_heads + kv_head) * p.capacity * HEAD;
  return {p.keys + offset, p.values + offset, nullptr};
}

// The element of a head that d[e] of `mma` is about, in the c-th product.
__device__ __forceinline__ int element(int c, int t, int e) { return c * 8 + 2 * t + e; }

// Where chunk c of a position lies, so that 8 positions' c-th chunks lie in different banks.
__device__ __forceinline__ int place(int key, int c) {
  const int turn = CHUNKS >= 8 ? key & 7 : (key >> 1) & 3;
  return key * CHUNKS + (c ^ turn);
}

__device__ __forceinline__ void copy_keys(KeysValues& to, const HeadCache& cache, int start,
                                          int end, int lane) {
#pragma unroll
  for (int i = 0; i < KEYS * CHUNKS / 32; i++) {
    const int at = i * 32 + lane, key = at / CHUNKS, c = at % CHUNKS;
    // Positions past the end are copied too, of the last one: what follows it may not be numbers.
    const u64 from = (u64)min(start + key, end - 1) * HEAD + c * 8;
    copy_async<16>(&to.keys[place(key, c)], cache.keys + from);
    copy_async<16>(&to.values[place(key, c)], cache.values + from);
  }
}

// Two elements each of x and y, rotated by two angles.
__device__ __forceinline__ void turn(u32 x, u32 y, u32 cosines, u32 sines, u32& a, u32& b) {
  float x0 = low(x), x1 = high(x), y0 = low(y), y1 = high(y);
  rotate(x0, y0, low(cosines), low(sines));
  rotate(x1, y1, high(cosines), high(sines));
  a = pack(x0, x1);
  b = pack(y0, y1);
}

// Queries of a 16 x HEAD tile, rotated. A lane has both elements that are turned together.
__device__ __forceinline__ Queries load_queries(const Attention& p, int first, int rows, int start,
                                                int kv_head, int tile, int lane) {
  const int g = lane >> 2, t = lane & 3;
  Queries out;
#pragma unroll
  for (int below = 0; below < 2; below++) {
    const int query = tile * 16 + below * 8 + g, row = query / GROUP;
    const bool valid = row < rows;
    const int head = kv_head * GROUP + query % GROUP;
    const u64 width = (u64)(p.heads + 2 * p.kv_heads) * HEAD;
    const u16* from = p.qkv + (first + row) * width + head * HEAD;
    const u64 angle = (u64)(start + row) * (HEAD / 2);
#pragma unroll
    for (int step = 0; step < STEPS / 2; step++) {
#pragma unroll
      for (int part = 0; part < 2; part++) {
        const int d = step * 16 + part * 8 + 2 * t;
        u32 a = 0, b = 0;
        if (valid) {
          const u32 x = load_written((const u32*)(from + d));
          const u32 y = load_written((const u32*)(from + d + HEAD / 2));
          const u32 c = load_constant((const u32*)(p.cosines + angle + d));
          const u32 s = load_constant((const u32*)(p.sines + angle + d));
          turn(x, y, c, s, a, b);
        }
        out.q[step][part * 2 + below] = a;
        out.q[step + STEPS / 2][part * 2 + below] = b;
      }
    }
  }
  return out;
}

// Keys and values of this step's rows: into `fresh`, and into the cache. Two elements a thread.
__device__ __forceinline__ void append(KeysValues& fresh, const Attention& p,
                                       const HeadCache& cache, int slot, int first, int rows,
                                       int start, int kv_head, bool writes) {
  u32* fresh_keys = (u32*)fresh.keys;
  u32* fresh_values = (u32*)fresh.values;
  for (int i = threadIdx.x; i < KEYS * HEAD / 4; i += THREADS) {
    const int row = i / (HEAD / 4), d = i % (HEAD / 4) * 2;
    u32 a = 0, b = 0, v = 0, w = 0;
    if (row < rows) {
      const u64 width = (u64)(p.heads + 2 * p.kv_heads) * HEAD;
      const u16* key = p.qkv + (first + row) * width + (p.heads + kv_head) * HEAD + d;
      const u16* value = key + p.kv_heads * HEAD;
      const u64 angle = (u64)(start + row) * (HEAD / 2) + d;
      const u32 x = load_written((const u32*)key);
      const u32 y = load_written((const u32*)(key + HEAD / 2));
      const u32 c = load_constant((const u32*)(p.cosines + angle));
      const u32 n = load_constant((const u32*)(p.sines + angle));
      turn(x, y, c, n, a, b);
      v = load_written((const u32*)value);
      w = load_written((const u32*)(value + HEAD / 2));
      if (writes) {
        const u64 to = (u64)(start + row) * HEAD + d;
        *(u32*)(cache.keys + to) = a;
        *(u32*)(cache.keys + to + HEAD / 2) = b;
        *(u32*)(cache.values + to) = v;
        *(u32*)(cache.values + to + HEAD / 2) = w;
      }
    }
    const int at = place(row, d / 8) * 4 + d % 8 / 2;
    const int later = place(row, (d + HEAD / 2) / 8) * 4 + d % 8 / 2;
    fresh_keys[at] = a;
    fresh_keys[later] = b;
    fresh_values[at] = v;
    fresh_values[later] = w;
  }
}

// Adds 16 positions. `limit[i]`: positions from there on do not count, for rows g and g + 8.
__device__ __forceinline__ void add_keys(Sums& sums, const Queries& queries,
                                         const KeysValues& kv, const int (&limit)[2], float scale,
                                         int lane) {
  const auto& q = queries.q;
  const int t = lane & 3;
  float s[2][4] = {};
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    // Matrices: positions 0-7 at this step's first and second 8 elements, then positions 8-15.
    u32 k[4];
    load_matrices(k, &kv.keys[place((lane & 7) + (lane >> 4) * 8, step * 2 + (lane >> 3 & 1))]);
    mma(s[0], q[step][0], q[step][1], q[step][2], q[step][3], k[0], k[1]);
    mma(s[1], q[step][0], q[step][1], q[step][2], q[step][3], k[2], k[3]);
  }
  u32 weights[4];
#pragma unroll
  for (int below = 0; below < 2; below++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int key = (i >> 1) * 8 + 2 * t + (i & 1);
      float& score = s[i >> 1][below * 2 + (i & 1)];
      score = key < limit[below] ? score * scale : -infinity();
    }
    weigh(sums, s, below);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      weights[half * 2 + below] = pack(s[half][below * 2], s[half][below * 2 + 1]);
    }
  }
#pragma unroll
  for (int c = 0; c < CHUNKS; c += 2) {
    // Matrices: positions 0-7 and 8-15 of chunk c, then of chunk c + 1.
    u32 v[4];
    load_transposed(v, &kv.values[place(lane & 15, c + (lane >> 4))]);
    mma(sums.o[c], weights[0], weights[1], weights[2], weights[3], v[0], v[1]);
    mma(sums.o[c + 1], weights[0], weights[1], weights[2], weights[3], v[2], v[3]);
  }
}

__device__ __forceinline__ void finish(Sums& sums) {}
