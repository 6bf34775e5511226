// A kernel's source compiled for cuda_emulation. -DSOURCE="file" -DENTRY=function
#define EMULATED
#define EXPORT extern "C" __attribute__((visibility("default")))
#define UNCHECKED __attribute__((no_sanitize("thread")))
struct Shared;
#include SOURCE

namespace emulation {

template <class T, class = void>
struct SizeOf {
  static constexpr u64 value = 0;  // a source without `Shared`
};
template <class T>
struct SizeOf<T, decltype((void)sizeof(T))> {
  static constexpr u64 value = sizeof(T);
};

template <class T>
struct ArgumentOf;
template <class T>
struct ArgumentOf<void (*)(T)> {
  using type = T;
};
using Argument = typename ArgumentOf<decltype(&ENTRY)>::type;

static const Argument* argument;
UNCHECKED static void call() { ENTRY(*argument); }

}  // namespace emulation

EXPORT u64 shared_bytes() { return emulation::SizeOf<Shared>::value; }
EXPORT u64 argument_bytes() { return sizeof(emulation::Argument); }
EXPORT int threads() { return THREADS; }
EXPORT UNCHECKED const char* launch(const void* argument, const u32* grid, int cta_threads,
                                    u64 shared_bytes, const emulation::Range* ranges, int count,
                                    u32 seed, int late) {
  emulation::argument = (const emulation::Argument*)argument;
  return emulation::run_grid(grid, cta_threads, shared_bytes, ranges, count, seed, late,
                             emulation::call);
}
