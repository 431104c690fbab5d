// The kernels on Highway: this file is compiled once per target (foreach_target.h re-includes it),
// each time into its own namespace, and the bottom part picks among the results at run time.
//
// Single query. The scan is bound by memory: one row after the other, so that memory is read as one
// stream, with software prefetch a fixed number of bytes ahead. The hardware's prefetchers stop at
// 4 KiB page boundaries and rows are often mapped from 4 KiB pages; the prefetch ahead starts the
// next page's TLB walk early, which is where most of its gain is. Only the final additions across
// lanes are shared by four rows. Tried and dropped: four rows in step, which shares the loads of
// the query; its four streams, a row apart, took 1.5 times as long from DRAM at 784 dimensions.
//
// Batch. The register-blocked inner kernel of Goto and van de Geijn, "Anatomy of High-Performance
// Matrix Multiplication" (ACM TOMS 34(3), 2008), with one departure: vectors run across queries, so
// a row's element is broadcast, nothing is summed across lanes and rows need no packing.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distance/kernels.cc"
// SSSE3 is older than any server we know and not worth its code size. SVE's vectors are types
// without a size, of which there can be no arrays; CPUs with SVE run the NEON code.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif

#include <hwy/foreach_target.h>
// After foreach_target.h, which sets the target.
#include <hwy/highway.h>

#include <cstdlib>
#include <limits>
#include <vector>

#include "distance/kernels.h"

// Highway's own scalar and emulated targets are left out: kernels_scalar.cc is ours.
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace aionbd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Quad = hn::FixedTag<float, 4>;
using Vector = hn::Vec<Floats>;
using QuadVector = hn::Vec<Quad>;

constexpr size_t kLanes = HWY_LANES(float);

// Sizes by the number of registers: 32 on AVX-512 and NEON, 16 below. A tile needs rows x vectors
// accumulators, `vectors` query vectors and one broadcast. The accumulators of the scan hide the
// latency of multiply-add (4 cycles, up to 2 a cycle). None of the sizes below has been timed
// on ARM.
constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON;
constexpr bool kHasFma = HWY_TARGET != HWY_SSE4;
constexpr size_t kAccumulators = 4;
constexpr size_t kTileRows = kManyRegisters ? 8 : 4;
constexpr size_t kTileVectors = kHasFma ? 3 : 2;

// Rows whose sums across lanes are made together.
constexpr size_t kGroup = 4;

// Far enough to cover a DRAM access at one core's bandwidth (100 ns x 30 GB/s) and to be on the
// next page in time. By measurement (Zen 4, rows of 784 and 100 floats from DRAM): 2 to 3 KiB is
// within 1.1 of a bare prefetching read at both; from 3.5 KiB up short rows lose a third, below 2
// KiB long ones lose; into L1 instead of L2 costs 10 to 20 %.
constexpr size_t kPrefetchBytes = 3072;
// One touch per row this far ahead, so that the walk for a small page is over before its lines are
// asked for: 3 to 5 % on anonymous 4 KiB pages, nothing lost elsewhere.
constexpr size_t kTouchBytes = 8192;
constexpr size_t kLineBytes = 64;

// ---- Single query ------------------------------------------------------------------------------

struct DotStep {
  static HWY_INLINE Vector add(Vector q, Vector x, Vector sum) { return hn::MulAdd(q, x, sum); }
};

struct L2Step {
  static HWY_INLINE Vector add(Vector q, Vector x, Vector sum) {
    const Vector difference = hn::Sub(q, x);
    return hn::MulAdd(difference, difference, sum);
  }
};

// The first `count` (1 .. kLanes - 1) floats at p, then zeros. Reads nothing else.
HWY_INLINE Vector load_first(const float* p, size_t count) {
  const Floats d;
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN float padded[kLanes] = {};
  for (size_t i = 0; i < count; ++i) padded[i] = p[i];
  return hn::Load(d, padded);
#else
  return hn::MaskedLoad(hn::FirstN(d, count), d, p);
#endif
}

// Rows of floats, as they lie.
struct FloatRows {
  using Value = float;
  HWY_INLINE Vector load(const float* p) const { return hn::LoadU(Floats(), p); }
  HWY_INLINE Vector first(const float* p, size_t count) const { return load_first(p, count); }
};

// Rows of bytes, made the floats that they stand for: both steps of it are exact.
struct ByteRows {
  using Value = uint8_t;
  using Bytes = hn::Rebind<uint8_t, Floats>;
  using Integers = hn::Rebind<int32_t, Floats>;
  Vector base;

  HWY_INLINE Vector load(const uint8_t* p) const {
    const auto integers = hn::PromoteTo(Integers(), hn::LoadU(Bytes(), p));
    return hn::Add(base, hn::ConvertTo(Floats(), integers));
  }
  // The values behind the first `count` are zeros, as those of the query are.
  HWY_INLINE Vector first(const uint8_t* p, size_t count) const {
    HWY_ALIGN float values[kLanes] = {};
    const float lowest = hn::GetLane(base);
    for (size_t i = 0; i < count; ++i) values[i] = lowest + static_cast<float>(p[i]);
    return hn::Load(Floats(), values);
  }
};

// Into L2: hwy::Prefetch would bring it into L1.
template <bool prefetch, size_t bytes = kPrefetchBytes>
HWY_INLINE void prefetch_at(const void* p) {
  if constexpr (prefetch) {
    __builtin_prefetch(reinterpret_cast<const char*>(p) + bytes, 0, 2);
  }
}

// The partial sums of one row, accumulators already added up.
template <class Step, bool prefetch, class Rows>
HWY_INLINE Vector accumulate(const Rows& rows, const float* HWY_RESTRICT query,
                             const typename Rows::Value* HWY_RESTRICT row, size_t dim) {
  const Floats d;
  Vector partial[kAccumulators] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  size_t k = 0;
  for (; k + kLanes * kAccumulators <= dim; k += kLanes * kAccumulators) {
#pragma GCC unroll 4
    for (size_t a = 0; a < kAccumulators; ++a) {
      const typename Rows::Value* x = row + k + a * kLanes;
      if ((a * kLanes * sizeof(*x)) % kLineBytes == 0) prefetch_at<prefetch>(x);
      partial[a] = Step::add(hn::LoadU(d, query + k + a * kLanes), rows.load(x), partial[a]);
    }
  }
  // At most kAccumulators - 1 whole vectors and a short one remain; each to the next accumulator.
#pragma GCC unroll 4
  for (size_t a = 0; a < kAccumulators; ++a, k += kLanes) {
    if (k >= dim) break;
    prefetch_at<prefetch>(row + k);
    const size_t left = dim - k;
    const bool whole = left >= kLanes;
    const Vector q = whole ? hn::LoadU(d, query + k) : load_first(query + k, left);
    const Vector x = whole ? rows.load(row + k) : rows.first(row + k, left);
    partial[a] = Step::add(q, x, partial[a]);
  }
  return hn::Add(hn::Add(partial[0], partial[1]), hn::Add(partial[2], partial[3]));
}

template <class D>
HWY_INLINE QuadVector fold_to_quad(D, hn::Vec<D> v) {
  if constexpr (sizeof(v) == sizeof(QuadVector)) {
    return v;
  } else {
    const hn::Half<D> half;
    return fold_to_quad(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// Lane r = sum of the lanes of sums[r]. The tree is that of sum_lanes below.
HWY_INLINE QuadVector sum_lanes_of_four(const Vector* sums) {
  const Floats d;
  const Quad d4;
  const QuadVector s0 = fold_to_quad(d, sums[0]);
  const QuadVector s1 = fold_to_quad(d, sums[1]);
  const QuadVector s2 = fold_to_quad(d, sums[2]);
  const QuadVector s3 = fold_to_quad(d, sums[3]);
  const QuadVector low = hn::Add(hn::InterleaveLower(d4, s0, s1), hn::InterleaveUpper(d4, s0, s1));
  const QuadVector high = hn::Add(hn::InterleaveLower(d4, s2, s3), hn::InterleaveUpper(d4, s2, s3));
  return hn::Add(hn::ConcatLowerLower(d4, high, low), hn::ConcatUpperUpper(d4, high, low));
}

HWY_INLINE float sum_lanes(Vector sum) {
  const QuadVector s = fold_to_quad(Floats(), sum);
  const QuadVector pairs = hn::Add(s, hn::Shuffle1032(s));
  return hn::GetLane(hn::Add(pairs, hn::Shuffle2301(pairs)));
}

template <class Step, bool prefetch, class Rows>
HWY_INLINE void scan_group(const Rows& rows, const float* query, const typename Rows::Value* values,
                           size_t dim, float* out) {
  Vector sums[kGroup];
#pragma GCC unroll 4
  for (size_t r = 0; r < kGroup; ++r) {
    const typename Rows::Value* row = values + r * dim;
    prefetch_at<prefetch, kTouchBytes>(row);
    sums[r] = accumulate<Step, prefetch>(rows, query, row, dim);
  }
  hn::StoreU(sum_lanes_of_four(sums), Quad(), out);
}

template <class Step, class Rows>
HWY_INLINE void scan(const Rows& rows, const float* HWY_RESTRICT query,
                     const typename Rows::Value* HWY_RESTRICT values, size_t dim, size_t n,
                     float* HWY_RESTRICT out) {
  // Nothing beyond the caller's rows is prefetched: it would only evict something useful.
  const size_t ahead_rows = kTouchBytes / sizeof(*values) / (dim + 1) + 1;
  size_t i = 0;
  for (; i + kGroup + ahead_rows <= n; i += kGroup) {
    scan_group<Step, true>(rows, query, values + i * dim, dim, out + i);
  }
  for (; i + kGroup <= n; i += kGroup) {
    scan_group<Step, false>(rows, query, values + i * dim, dim, out + i);
  }
  for (; i < n; ++i) {
    out[i] = sum_lanes(accumulate<Step, false>(rows, query, values + i * dim, dim));
  }
}

void dot(const float* query, const float* rows, size_t dim, size_t n, float* out) {
  scan<DotStep>(FloatRows(), query, rows, dim, n, out);
}

void l2_squared(const float* query, const float* rows, size_t dim, size_t n, float* out) {
  scan<L2Step>(FloatRows(), query, rows, dim, n, out);
}

void dot_bytes(const float* query, const uint8_t* rows, float base, size_t dim, size_t n,
               float* out) {
  scan<DotStep>(ByteRows{hn::Set(Floats(), base)}, query, rows, dim, n, out);
}

void l2_squared_bytes(const float* query, const uint8_t* rows, float base, size_t dim, size_t n,
                      float* out) {
  scan<L2Step>(ByteRows{hn::Set(Floats(), base)}, query, rows, dim, n, out);
}

// ---- Batch -------------------------------------------------------------------------------------

// Writes the finished values of one row of a tile. totals: the sums, float[vectors x kLanes].
template <size_t vectors>
HWY_INLINE void finish_row(const BatchArguments& a, size_t row, size_t column,
                           const float* HWY_RESTRICT totals) {
  const Floats d;
  const Vector scale = hn::Set(d, a.row_scale[row]);
  const Vector row_add = hn::Set(d, a.row_add[row]);
  const Vector lowest = hn::Set(d, a.lowest);
  const Vector highest = hn::Set(d, a.highest);
  const Vector farthest = hn::Set(d, std::numeric_limits<float>::infinity());
  const float* column_add = a.column_add + column;
  float* out = a.out + row * a.columns + column;
#pragma GCC unroll 16
  for (size_t v = 0; v < vectors; ++v) {
    const Vector add = hn::Add(hn::LoadU(d, column_add + v * kLanes), row_add);
    const Vector value = hn::MulAdd(hn::Load(d, totals + v * kLanes), scale, add);
    const Vector clamped = hn::Min(hn::Max(value, lowest), highest);
    hn::StoreU(hn::IfThenElse(hn::IsFinite(value), clamped, farthest), d, out + v * kLanes);
  }
}

// kTileRows rows against one panel of `vectors` vectors. Where fewer rows are left, the last one is
// repeated and the repetitions are not written.
template <size_t vectors>
HWY_NOINLINE void tile(const BatchArguments& a, size_t row, size_t column) {
  const Floats d;
  constexpr size_t kWidth = vectors * kLanes;
  HWY_ALIGN float totals[kTileRows * kWidth];
  const float* rows[kTileRows];
  for (size_t r = 0; r < kTileRows; ++r) {
    rows[r] = a.rows + HWY_MIN(row + r, a.n - 1) * a.dim;
  }
  const float* HWY_RESTRICT panel = a.packed + column * a.dim;
  for (size_t begin = 0; begin < a.dim; begin += kBatchDepth) {
    const size_t end = HWY_MIN(a.dim, begin + kBatchDepth);
    Vector sums[kTileRows][vectors];
#pragma GCC unroll 16
    for (size_t r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 16
      for (size_t v = 0; v < vectors; ++v) sums[r][v] = hn::Zero(d);
    }
    for (size_t k = begin; k < end; ++k, panel += kWidth) {
      Vector q[vectors];
#pragma GCC unroll 16
      for (size_t v = 0; v < vectors; ++v) q[v] = hn::Load(d, panel + v * kLanes);
#pragma GCC unroll 16
      for (size_t r = 0; r < kTileRows; ++r) {
        const Vector x = hn::Set(d, rows[r][k]);
#pragma GCC unroll 16
        for (size_t v = 0; v < vectors; ++v) sums[r][v] = hn::MulAdd(x, q[v], sums[r][v]);
      }
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 16
      for (size_t v = 0; v < vectors; ++v) {
        float* total = totals + r * kWidth + v * kLanes;
        hn::Store(begin == 0 ? sums[r][v] : hn::Add(hn::Load(d, total), sums[r][v]), d, total);
      }
    }
  }
  const size_t valid = HWY_MIN(kTileRows, a.n - row);
  for (size_t r = 0; r < valid; ++r) {
    finish_row<vectors>(a, row + r, column, totals + r * kWidth);
  }
}

// Panel by panel, so that a panel stays in L2 (and its current piece in L1) for all rows of the
// block; the block's rows stay in L2 for all panels.
void batch(const BatchArguments& a) {
  constexpr size_t kPanel = kTileVectors * kLanes;
  for (size_t column = 0; column < a.columns; column += kPanel) {
    const size_t vectors = HWY_MIN(kPanel, a.columns - column) / kLanes;
    for (size_t row = 0; row < a.n; row += kTileRows) {
      if (vectors == 1) {
        tile<1>(a, row, column);
      } else if (vectors == 2) {
        tile<2>(a, row, column);
      } else {
        tile<kTileVectors>(a, row, column);
      }
    }
  }
}

// ---- Selection ---------------------------------------------------------------------------------

struct EachThreshold {
  const float* values;
  HWY_INLINE Vector vector(size_t i) const { return hn::LoadU(Floats(), values + i); }
  HWY_INLINE float scalar(size_t i) const { return values[i]; }
};

struct OneThreshold {
  Vector value;
  float plain;
  HWY_INLINE Vector vector(size_t) const { return value; }
  HWY_INLINE float scalar(size_t) const { return plain; }
};

// Hits are rare, so whole vectors without one are skipped. Compress to a register and a
// whole-vector store: the masked store to memory is microcoded on Zen 4. The store stays inside
// `indexes` because count <= i.
template <class Threshold>
HWY_INLINE size_t select(const float* HWY_RESTRICT values, const Threshold& threshold, size_t n,
                         uint32_t* HWY_RESTRICT indexes) {
  const Floats d;
  const hn::RebindToUnsigned<Floats> du;
  size_t count = 0;
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto hit = hn::Le(hn::LoadU(d, values + i), threshold.vector(i));
    if (HWY_LIKELY(hn::AllFalse(d, hit))) continue;
    const auto hit_index = hn::RebindMask(du, hit);
    hn::StoreU(hn::Compress(hn::Iota(du, static_cast<uint32_t>(i)), hit_index), du,
               indexes + count);
    count += hn::CountTrue(d, hit);
  }
  for (; i < n; ++i) {
    if (values[i] <= threshold.scalar(i)) indexes[count++] = static_cast<uint32_t>(i);
  }
  return count;
}

size_t select_each(const float* values, const float* thresholds, size_t n, uint32_t* indexes) {
  return select(values, EachThreshold{thresholds}, n, indexes);
}

size_t select_one(const float* values, float threshold, size_t n, uint32_t* indexes) {
  return select(values, OneThreshold{hn::Set(Floats(), threshold), threshold}, n, indexes);
}

constexpr std::string_view kName = HWY_TARGET == HWY_AVX3   ? "avx512"
                                   : HWY_TARGET == HWY_AVX2 ? "avx2"
                                   : HWY_TARGET == HWY_SSE4 ? "sse4"
                                   : HWY_TARGET == HWY_NEON ? "neon"
                                                            : "other";

constexpr Kernels kKernels = {
    kName,     kLanes,           kAccumulators, kTileVectors* kLanes, dot,        l2_squared,
    dot_bytes, l2_squared_bytes, batch,         select_each,          select_one,
};

}  // namespace HWY_NAMESPACE
}  // namespace aionbd
HWY_AFTER_NAMESPACE();
#endif  // neither HWY_SCALAR nor HWY_EMU128

#if HWY_ONCE
namespace aionbd {
namespace {

// As bits of HWY_TARGETS.
int64_t runnable_targets() {
#if HWY_ARCH_ARM_A64
  // Every AArch64 CPU has NEON. Highway also asks for AES before it says so, which would leave the
  // plain loops to CPUs without (the Raspberry Pi 4's); nothing in this file uses AES.
  return HWY_NEON;
#else
  return hwy::SupportedTargets();
#endif
}

std::vector<const Kernels*> list_supported() {
  [[maybe_unused]] const int64_t supported = runnable_targets();
  std::vector<const Kernels*> list;
#if HWY_TARGETS & HWY_AVX3
  if (supported & HWY_AVX3) list.push_back(&N_AVX3::kKernels);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (supported & HWY_AVX2) list.push_back(&N_AVX2::kKernels);
#endif
#if HWY_TARGETS & HWY_SSE4
  if (supported & HWY_SSE4) list.push_back(&N_SSE4::kKernels);
#endif
#if HWY_TARGETS & HWY_NEON
  if (supported & HWY_NEON) list.push_back(&N_NEON::kKernels);
#endif
  list.push_back(&kScalarKernels);
  return list;
}

}  // namespace

std::span<const Kernels* const> supported_kernels() {
  static const std::vector<const Kernels*> list = list_supported();
  return list;
}

const Kernels& kernels_by_name(std::string_view name) {
  for (const Kernels* each : supported_kernels()) {
    if (each->name == name) return *each;
  }
  return *supported_kernels().front();
}

const Kernels& kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
    const char* wanted = std::getenv("AIONBD_SIMD");
    return kernels_by_name(wanted == nullptr ? "" : wanted);
  }();
  return chosen;
}

}  // namespace aionbd
#endif  // HWY_ONCE
