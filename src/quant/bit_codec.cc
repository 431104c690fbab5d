#include "quant/bit_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "quant/code_kernels.h"

namespace aionbd {

namespace {

/// With a lower cosine between a row's residual and its signs than this (random directions have
/// 0.8), the deviation would be so large that the code is of no use.
constexpr double kCosineLeast = 0.4;
/// More than the roundings of `add` and `rescale` to floats, relative to their parts.
constexpr double kFactorRounding = 0x1p-22;
/// The same of <q, x>, relative to the query's magnitudes.
constexpr float kSumRounding = 0x1p-20F;
/// Steps of the query that a group's magnitudes come to at most: rounding four coordinates adds up
/// to two, and the sums of a group must fit a byte.
constexpr float kWidestGroup = 253;

struct BitRow {
  float add = -kFarthest;
  float rescale = 0;
  float deviation = 0;
};

/// Where row r's nibble of a group is: bytes with even numbers hold rows 0 ... 7 (16 ... 23 in
/// their upper halves), those with odd ones 8 ... 15 (24 ... 31), so that 16-bit sums of even and
/// of odd bytes come out in the order of rows.
size_t byte_of(size_t row) {
  const size_t low = row % 16;
  return low < 8 ? 2 * low : 2 * (low - 8) + 1;
}

/// The factors of a row, and its signs into the nibbles at `codes`.
BitRow encode_row(const BitLayout& layout, const float* y, const float* centre, size_t row,
                  uint8_t* codes) {
  double squares = 0;  // |o|^2
  double product = 0;  // <x, o>
  double shift = 0;    // <x, c>
  const size_t byte = byte_of(row);
  const size_t bit = row < 16 ? 0 : 4;
  for (size_t k = 0; k < layout.coordinates; ++k) {
    const double residual = static_cast<double>(y[k]) - centre[k];
    squares += residual * residual;
    product += std::abs(residual);
    const bool positive = residual > 0;
    shift += positive ? centre[k] : -centre[k];
    if (positive) codes[k / 4 * 16 + byte] |= static_cast<uint8_t>(1U << (bit + k % 4));
  }
  const auto coordinates = static_cast<double>(layout.coordinates);
  BitRow out;
  const double cosine2 = product * product / (squares * coordinates);
  if (!(cosine2 >= kCosineLeast * kCosineLeast)) return out;
  const double rescale = -2 * squares / product;
  const double add = squares - rescale * shift;
  const double rounded = kFactorRounding * (squares + std::abs(rescale * shift));
  const double rest = std::sqrt(std::max(0.0, coordinates * (1 - cosine2)));  // |x'|
  const double deviation = -rescale * rest / std::sqrt(std::max(1.0, coordinates - 1));
  if (!(std::abs(add) + rounded + deviation - rescale < 1e37)) return out;
  out.add = static_cast<float>(add - rounded);
  out.rescale = static_cast<float>(rescale);
  out.deviation = static_cast<float>(deviation);
  return out;
}

/// The 16 sums of a group less their least, entry i: of the coordinates whose bits i has. In bytes
/// and by masks, so that compilers make vectors of it.
void fill_table(const std::array<int, 4>& steps, int least, uint8_t* table) {
  for (uint8_t i = 0; i < 16; ++i) {
    uint8_t entry = static_cast<uint8_t>(-least);
    for (size_t k = 0; k < 4; ++k) {
      const auto mask = static_cast<uint8_t>(-(i >> k & 1));
      entry = static_cast<uint8_t>(entry + (mask & static_cast<uint8_t>(steps[k])));
    }
    table[i] = entry;
  }
}

/// For magnitudes up to 2^22: adding 1.5 x 2^23 leaves no bit for a fraction.
int nearest_integer(float value) {
  constexpr float kMagic = 12582912.0F;
  return static_cast<int>(value + kMagic) - static_cast<int>(kMagic);
}

/// The upper half of the next float that has no lower half. REQUIRES: 0 <= value < 1e38.
uint16_t upper_half(float value) {
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0xFFFFU) >> 16);
}

}  // namespace

void encode_bits(const BitLayout& layout, const float* y, std::span<const uint32_t> ids,
                 const float* centre, uint8_t* block) {
  DCHECK_LE(ids.size(), kBitRows);
  std::fill_n(block, layout.block_bytes(), uint8_t{0});
  std::array<float, kBitRows> add;
  std::array<float, kBitRows> rescale{};
  std::array<uint16_t, kBitRows> deviation{};
  add.fill(kFarthest);
  for (size_t i = 0; i < ids.size(); ++i) {
    const BitRow row =
        encode_row(layout, y + size_t{ids[i]} * layout.coordinates, centre, i, block);
    add[i] = row.add;
    rescale[i] = row.rescale;
    deviation[i] = upper_half(row.deviation);
  }
  uint8_t* tail = block + layout.lines * kLineBytes;
  std::memcpy(tail, add.data(), sizeof add);
  std::memcpy(tail + sizeof add, rescale.data(), sizeof rescale);
  std::memcpy(tail + sizeof add + sizeof rescale, deviation.data(), sizeof deviation);
}

BitQuery::BitQuery(const BitLayout& layout, const float* y)
    : layout_(layout), tables_(layout.lines) {
  // Padded with zeros to whole groups.
  std::vector<float> padded(4 * layout.groups);
  std::copy_n(y, layout.coordinates, padded.begin());
  float widest = 0;
  float magnitudes = 0;
  for (size_t g = 0; g < layout.groups; ++g) {
    const float* of = padded.data() + 4 * g;
    const float width = (std::abs(of[0]) + std::abs(of[1])) + (std::abs(of[2]) + std::abs(of[3]));
    widest = std::max(widest, width);
    magnitudes += width;
  }
  rounding_ = magnitudes * kSumRounding;
  const float step = widest / kWidestGroup;
  if (!(step > 1e-30F && magnitudes < kFarthest)) {
    rounding_ += magnitudes;  // all entries stay 0
    return;
  }
  const float inverse = 1 / step;
  int32_t centre = 0;  // twice the least sum less the sum of all
  auto* tables = reinterpret_cast<uint8_t*>(tables_.data());
  for (size_t g = 0; g < layout.groups; ++g) {
    std::array<int, 4> steps;
    int least = 0;
    for (size_t k = 0; k < 4; ++k) {
      steps[k] = nearest_integer(padded[4 * g + k] * inverse);
      least += std::min(steps[k], 0);
      centre -= steps[k];
    }
    centre += 2 * least;
    fill_table(steps, least, tables + 16 * g);
  }
  step_ = 2 * step;
  base_ = step * static_cast<float>(centre);
  // A coordinate is off by up to half a step, evenly: sqrt(1/12) steps.
  deviation_ = step * std::sqrt(static_cast<float>(layout.coordinates) / 12.0F);
}

void BitQuery::lower_estimates(const uint8_t* blocks, size_t count, float centre_distance,
                               float* out, float deviations) const {
  // `rescale` is negative, so what is added to <q, x> lowers the estimate. An estimate proper is
  // lowered by roundings alone.
  const BitScan scan = {reinterpret_cast<const uint8_t*>(tables_.data()),
                        layout_.lines,
                        blocks,
                        layout_.block_bytes(),
                        count,
                        step_,
                        base_ + deviations * deviation_ + rounding_,
                        centre_distance,
                        deviations * std::sqrt(centre_distance),
                        out};
  code_kernels().bit_scan(scan);
}

}  // namespace aionbd
