// The code kernels on Highway: compiled once per target, the best one picked at run time.
//
// With VNNI (HWY_AVX3_DL) a 64-byte line of nibbles is two multiply-adds of 64 products each.
// Elsewhere bytes are widened to 16 bits and multiplied pairwise into 32-bit sums. Four rows are
// summed across lanes together. Byte sums stay within int32 for every dimension: 255 x 128 x 4096.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/code_kernels.cc"
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
// VNNI is part of this target, which Highway builds on request only.
#ifndef HWY_WANT_AVX3_DL
#define HWY_WANT_AVX3_DL
#endif

#include <hwy/foreach_target.h>
// After foreach_target.h, which sets the target.
#include <hwy/highway.h>

#include <cstdlib>
#include <vector>

#include "quant/code_kernels.h"

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
#if HWY_TARGET == HWY_AVX3_DL
// Highway 1.0.3 does not name VNNI among this target's features; every CPU with the others has it.
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")
#else
HWY_BEFORE_NAMESPACE();
#endif
namespace aionbd {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Ints = hn::ScalableTag<int32_t>;
using IntVector = hn::Vec<Ints>;

#if HWY_TARGET == HWY_AVX3_DL

// Sums of products of unsigned and signed bytes, one 64-byte line.
struct Line {
  static HWY_INLINE __m512i nibbles(const NibbleWeights& w, const uint8_t* row, size_t at,
                                    __m512i sum) {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i code = _mm512_loadu_si512(row + at);
    const __m512i low = _mm512_and_si512(code, mask);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(code, 4), mask);
    sum = _mm512_dpbusd_epi32(sum, low, _mm512_load_si512(w.low + at));
    return _mm512_dpbusd_epi32(sum, high, _mm512_load_si512(w.high + at));
  }
  static HWY_INLINE __m512i bytes(const int8_t* query, const uint8_t* row, size_t at, __m512i sum) {
    return _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(row + at), _mm512_loadu_si512(query + at));
  }
};

HWY_INLINE __m128i fold(__m512i v) {
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

template <size_t lines>
HWY_INLINE __m512i nibble_sums(const NibbleWeights& w, const uint8_t* row) {
  __m512i sum = _mm512_setzero_si512();
  const size_t count = lines == 0 ? w.lines : lines;
  for (size_t i = 0; i < count; ++i) sum = Line::nibbles(w, row, i * kLineBytes, sum);
  return sum;
}

// `row_of(i)`: where row i starts. lines: lines of a row if known when compiled, else 0.
template <size_t lines, class RowOf>
HWY_INLINE void nibble_rows(const NibbleWeights& w, RowOf row_of, size_t n, int32_t* out) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const __m128i a = fold(nibble_sums<lines>(w, row_of(i)));
    const __m128i b = fold(nibble_sums<lines>(w, row_of(i + 1)));
    const __m128i c = fold(nibble_sums<lines>(w, row_of(i + 2)));
    const __m128i d = fold(nibble_sums<lines>(w, row_of(i + 3)));
    const __m128i sums = _mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), sums);
  }
  for (; i < n; ++i) out[i] = _mm512_reduce_add_epi32(nibble_sums<lines>(w, row_of(i)));
}

HWY_INLINE __m512i byte_sums(const int8_t* query, const uint8_t* row, size_t bytes) {
  __m512i sum = _mm512_setzero_si512();
  for (size_t at = 0; at < bytes; at += kLineBytes) sum = Line::bytes(query, row, at, sum);
  return sum;
}

template <class RowOf>
HWY_INLINE void byte_rows(const int8_t* query, RowOf row_of, size_t bytes, size_t n, int32_t* out) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const __m128i a = fold(byte_sums(query, row_of(i), bytes));
    const __m128i b = fold(byte_sums(query, row_of(i + 1), bytes));
    const __m128i c = fold(byte_sums(query, row_of(i + 2), bytes));
    const __m128i d = fold(byte_sums(query, row_of(i + 3), bytes));
    const __m128i sums = _mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), sums);
  }
  for (; i < n; ++i) out[i] = _mm512_reduce_add_epi32(byte_sums(query, row_of(i), bytes));
}

#else

using Shorts = hn::Repartition<int16_t, Ints>;
using NarrowBytes = hn::Rebind<uint8_t, Shorts>;
using NarrowSigned = hn::Rebind<int8_t, Shorts>;

constexpr size_t kStep = HWY_LANES(int16_t);
static_assert(kLineBytes % kStep == 0);

template <size_t lines>
HWY_INLINE IntVector nibble_sums(const NibbleWeights& w, const uint8_t* row) {
  const Ints d;
  const Shorts d16;
  IntVector sum0 = hn::Zero(d);
  IntVector sum1 = hn::Zero(d);
  const auto mask = hn::Set(d16, int16_t{15});
  const size_t bytes = (lines == 0 ? w.lines : lines) * kLineBytes;
  for (size_t at = 0; at < bytes; at += kStep) {
    const auto code = hn::PromoteTo(d16, hn::LoadU(NarrowBytes(), row + at));
    const auto low = hn::PromoteTo(d16, hn::LoadU(NarrowSigned(), w.low + at));
    const auto high = hn::PromoteTo(d16, hn::LoadU(NarrowSigned(), w.high + at));
    sum0 = hn::ReorderWidenMulAccumulate(d, hn::And(code, mask), low, sum0, sum1);
    sum0 = hn::ReorderWidenMulAccumulate(d, hn::ShiftRight<4>(code), high, sum0, sum1);
  }
  return hn::Add(sum0, sum1);
}

template <size_t lines, class RowOf>
HWY_INLINE void nibble_rows(const NibbleWeights& w, RowOf row_of, size_t n, int32_t* out) {
  const Ints d;
  for (size_t i = 0; i < n; ++i) {
    out[i] = hn::GetLane(hn::SumOfLanes(d, nibble_sums<lines>(w, row_of(i))));
  }
}

HWY_INLINE int32_t byte_sum(const int8_t* query, const uint8_t* row, size_t bytes) {
  const Ints d;
  const Shorts d16;
  IntVector sum0 = hn::Zero(d);
  IntVector sum1 = hn::Zero(d);
  for (size_t at = 0; at < bytes; at += kStep) {
    const auto q = hn::PromoteTo(d16, hn::LoadU(NarrowSigned(), query + at));
    const auto x = hn::PromoteTo(d16, hn::LoadU(NarrowBytes(), row + at));
    sum0 = hn::ReorderWidenMulAccumulate(d, q, x, sum0, sum1);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
}

template <class RowOf>
HWY_INLINE void byte_rows(const int8_t* query, RowOf row_of, size_t bytes, size_t n, int32_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = byte_sum(query, row_of(i), bytes);
}

#endif  // HWY_TARGET == HWY_AVX3_DL

// The usual widths are compiled for, so that their loops are unrolled.
template <class RowOf>
HWY_INLINE void nibble_any(const NibbleWeights& w, RowOf row_of, size_t n, int32_t* out) {
  switch (w.lines) {
    case 1: return nibble_rows<1>(w, row_of, n, out);
    case 2: return nibble_rows<2>(w, row_of, n, out);
    case 3: return nibble_rows<3>(w, row_of, n, out);
    case 4: return nibble_rows<4>(w, row_of, n, out);
    default: return nibble_rows<0>(w, row_of, n, out);
  }
}

void nibble_dot(const NibbleWeights& weights, const uint8_t* rows, size_t stride,
                const uint32_t* ids, size_t n, int32_t* out) {
  nibble_any(
      weights, [=](size_t i) HWY_ATTR { return rows + ids[i] * stride; }, n, out);
}

void nibble_scan(const NibbleWeights& weights, const uint8_t* rows, size_t stride, size_t n,
                 int32_t* out) {
  nibble_any(
      weights, [=](size_t i) HWY_ATTR { return rows + i * stride; }, n, out);
}

void byte_dot(const int8_t* query, const uint8_t* rows, size_t stride, size_t bytes,
              const uint32_t* ids, size_t n, int32_t* out) {
  byte_rows(
      query, [=](size_t i) HWY_ATTR { return rows + ids[i] * stride; }, bytes, n, out);
}

void bound(const BoundArguments& a) {
  const hn::ScalableTag<float> d;
  const Ints di;
  constexpr size_t kFloats = HWY_LANES(float);
  size_t i = 0;
  for (; i + kFloats <= a.n; i += kFloats) {
    const auto high = hn::ShiftLeft<4>(hn::LoadU(di, a.high + i));
    const auto codes = hn::Sub(hn::Add(high, hn::LoadU(di, a.low + i)), hn::Set(di, a.centre));
    const auto product = hn::ConvertTo(d, codes);
    const auto norms = hn::Add(hn::Set(d, a.query_norm), hn::LoadU(d, a.norm + i));
    const auto scaled = hn::Mul(hn::Set(d, a.query_step2), product);
    const auto squared = hn::Sub(hn::Sub(norms, hn::Mul(scaled, hn::LoadU(d, a.step + i))),
                                 hn::Mul(hn::Set(d, a.rounding), norms));
    const auto errors = hn::Add(hn::Set(d, a.query_error), hn::LoadU(d, a.error + i));
    const auto root = hn::Sub(hn::Sqrt(hn::Max(hn::Zero(d), squared)), errors);
    const auto positive = hn::Max(hn::Zero(d), root);
    hn::StoreU(hn::Mul(hn::Mul(positive, positive), hn::Set(d, kBoundShrink)), d, a.out + i);
  }
  if (i == a.n) return;
  BoundArguments rest = a;
  rest.high += i, rest.low += i, rest.step += i, rest.norm += i, rest.error += i, rest.out += i;
  rest.n -= i;
  kScalarCodeKernels.bound(rest);
}

// One-bit codes: a line of nibbles is two shuffles. Sums of bytes are kept as 16-bit words, of odd
// bytes alone and of words as they stand; the latter less 256 times the former are those of the
// even bytes.

using BitBytes = hn::ScalableTag<uint8_t>;
using BitWords = hn::Repartition<uint16_t, BitBytes>;
using BitVector = hn::Vec<BitWords>;
using EightWords = hn::Simd<uint16_t, 8, 0>;

// The sum of a vector's 128-bit blocks, each of eight words.
HWY_INLINE hn::Vec<EightWords> sum_of_blocks(BitVector v) {
#if HWY_MAX_BYTES == 64
  const hn::Half<BitWords> half;
  const hn::Half<decltype(half)> quarter;
  const auto two = hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v));
  return hn::Add(hn::LowerHalf(quarter, two), hn::UpperHalf(quarter, two));
#elif HWY_MAX_BYTES == 32
  const EightWords half;
  return hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v));
#else
  return v;
#endif
}

// The 32 sums of a block's `lines` lines, at most kBitLinesPerSum; out: uint16_t[32], aligned.
template <size_t fixed>
HWY_INLINE void bit_sums(const uint8_t* tables, const uint8_t* codes, size_t lines, uint16_t* out) {
  const BitBytes d8;
  const BitWords d16;
  BitVector low = hn::Zero(d16);
  BitVector low_odd = hn::Zero(d16);
  BitVector high = hn::Zero(d16);
  BitVector high_odd = hn::Zero(d16);
  const auto mask = hn::Set(d8, uint8_t{15});
  const size_t bytes = (fixed == 0 ? lines : fixed) * kLineBytes;
  for (size_t at = 0; at < bytes; at += hn::Lanes(d8)) {
    const auto table = hn::LoadU(d8, tables + at);
    const auto code = hn::LoadU(d8, codes + at);
    const auto upper = hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, code)));
    const auto a = hn::BitCast(d16, hn::TableLookupBytes(table, hn::And(code, mask)));
    const auto b = hn::BitCast(d16, hn::TableLookupBytes(table, hn::And(upper, mask)));
    low = hn::Add(low, a);
    low_odd = hn::Add(low_odd, hn::ShiftRight<8>(a));
    high = hn::Add(high, b);
    high_odd = hn::Add(high_odd, hn::ShiftRight<8>(b));
  }
  low = hn::Sub(low, hn::ShiftLeft<8>(low_odd));
  high = hn::Sub(high, hn::ShiftLeft<8>(high_odd));
  const auto first = sum_of_blocks(low);
  const auto second = sum_of_blocks(low_odd);
  const auto third = sum_of_blocks(high);
  const auto fourth = sum_of_blocks(high_odd);
#if HWY_MAX_BYTES == 64
  // In stores as wide as the loads that follow: others would wait for memory.
  const hn::Half<BitWords> half;
  hn::Store(hn::Combine(half, second, first), half, out);
  hn::Store(hn::Combine(half, fourth, third), half, out + 16);
#else
  const EightWords d;
  hn::Store(first, d, out);
  hn::Store(second, d, out + 8);
  hn::Store(third, d, out + 16);
  hn::Store(fourth, d, out + 24);
#endif
}

// sums: uint16_t or int32_t[32], aligned.
template <class Sum>
HWY_INLINE void bit_estimates(const BitScan& a, const uint8_t* tail, const Sum* sums, float* out) {
  const hn::ScalableTag<float> d;
  const Ints di;
  const hn::Rebind<uint16_t, Ints> narrow;
  const auto* add = reinterpret_cast<const float*>(tail);
  const auto* rescale = add + 32;
  const auto* deviation = reinterpret_cast<const uint16_t*>(rescale + 32);
  for (size_t i = 0; i < 32; i += HWY_LANES(float)) {
    IntVector sum;
    if constexpr (sizeof(Sum) == 2) {
      sum = hn::PromoteTo(di, hn::Load(narrow, sums + i));
    } else {
      sum = hn::Load(di, sums + i);
    }
    const auto product =
        hn::MulAdd(hn::Set(d, a.step), hn::ConvertTo(d, sum), hn::Set(d, a.offset));
    const auto base = hn::Add(hn::Set(d, a.base), hn::LoadU(d, add + i));
    const auto estimate = hn::MulAdd(hn::LoadU(d, rescale + i), product, base);
    const auto wide = hn::PromoteTo(di, hn::LoadU(narrow, deviation + i));
    const auto deviations = hn::BitCast(d, hn::ShiftLeft<16>(wide));
    hn::StoreU(hn::NegMulAdd(deviations, hn::Set(d, a.reach), estimate), d, out + i);
  }
}

template <size_t fixed>
HWY_INLINE void bit_blocks(const BitScan& a) {
  HWY_ALIGN uint16_t sums[32];
  for (size_t b = 0; b < a.count; ++b) {
    const uint8_t* block = a.blocks + b * a.stride;
    bit_sums<fixed>(a.tables, block, a.lines, sums);
    bit_estimates(a, block + a.lines * kLineBytes, sums, a.out + b * 32);
  }
}

// More coordinates than 16-bit sums can hold.
void bit_blocks_long(const BitScan& a) {
  HWY_ALIGN uint16_t part[32];
  HWY_ALIGN int32_t sums[32];
  for (size_t b = 0; b < a.count; ++b) {
    const uint8_t* block = a.blocks + b * a.stride;
    for (int32_t& sum : sums) sum = 0;
    for (size_t line = 0; line < a.lines; line += kBitLinesPerSum) {
      const size_t lines = HWY_MIN(kBitLinesPerSum, a.lines - line);
      bit_sums<0>(a.tables + line * kLineBytes, block + line * kLineBytes, lines, part);
      for (size_t i = 0; i < 32; ++i) sums[i] += part[i];
    }
    bit_estimates(a, block + a.lines * kLineBytes, sums, a.out + b * 32);
  }
}

void bit_scan(const BitScan& a) {
  switch (a.lines) {
    case 4: return bit_blocks<4>(a);
    case 6: return bit_blocks<6>(a);
    case 7: return bit_blocks<7>(a);
    case 8: return bit_blocks<8>(a);
    default: return a.lines <= kBitLinesPerSum ? bit_blocks<0>(a) : bit_blocks_long(a);
  }
}

constexpr std::string_view kName = HWY_TARGET == HWY_AVX3_DL ? "avx512vnni"
                                   : HWY_TARGET == HWY_AVX3  ? "avx512"
                                   : HWY_TARGET == HWY_AVX2  ? "avx2"
                                   : HWY_TARGET == HWY_SSE4  ? "sse4"
                                   : HWY_TARGET == HWY_NEON  ? "neon"
                                                             : "other";

constexpr CodeKernels kCodeKernels = {kName, nibble_dot, nibble_scan, byte_dot, bound, bit_scan};

}  // namespace HWY_NAMESPACE
}  // namespace aionbd
HWY_AFTER_NAMESPACE();
#endif  // neither HWY_SCALAR nor HWY_EMU128

#if HWY_ONCE
namespace aionbd {
namespace {

std::vector<const CodeKernels*> list_supported() {
#if HWY_ARCH_ARM_A64
  // As for the distance kernels: every AArch64 CPU has NEON.
  [[maybe_unused]] const int64_t supported = HWY_NEON;
#else
  [[maybe_unused]] const int64_t supported = hwy::SupportedTargets();
#endif
  std::vector<const CodeKernels*> list;
#if HWY_TARGETS & HWY_AVX3_DL
  if (supported & HWY_AVX3_DL) list.push_back(&N_AVX3_DL::kCodeKernels);
#endif
#if HWY_TARGETS & HWY_AVX3
  if (supported & HWY_AVX3) list.push_back(&N_AVX3::kCodeKernels);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (supported & HWY_AVX2) list.push_back(&N_AVX2::kCodeKernels);
#endif
#if HWY_TARGETS & HWY_SSE4
  if (supported & HWY_SSE4) list.push_back(&N_SSE4::kCodeKernels);
#endif
#if HWY_TARGETS & HWY_NEON
  if (supported & HWY_NEON) list.push_back(&N_NEON::kCodeKernels);
#endif
  list.push_back(&kScalarCodeKernels);
  return list;
}

// AIONBD_SIMD=avx512 means "at most": it also admits the VNNI form of the same registers.
const CodeKernels& choose() {
  const char* wanted = std::getenv("AIONBD_SIMD");
  if (wanted != nullptr) {
    for (const CodeKernels* each : supported_code_kernels()) {
      if (each->name.substr(0, std::string_view(wanted).size()) == wanted) return *each;
    }
  }
  return *supported_code_kernels().front();
}

}  // namespace

std::span<const CodeKernels* const> supported_code_kernels() {
  static const std::vector<const CodeKernels*> list = list_supported();
  return list;
}

const CodeKernels& code_kernels() {
  static const CodeKernels& chosen = choose();
  return chosen;
}

}  // namespace aionbd
#endif  // HWY_ONCE
