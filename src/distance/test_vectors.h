// Vectors that are hard on floating-point sums, for the tests of this folder.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace aionbd {

enum class VectorKind {
  kGaussian,
  kIntegers,    // 0 .. 255, as images: exact sums, many ties
  kMixedScale,  // 1e-12 .. 1e12
  kNearlySame,  // large common part: l2 cancels
  kOneHot,
  kDenormal,
  kTiny,  // products underflow
  kLarge  // squares near the end of the range
};
inline constexpr VectorKind kVectorKinds[] = {
    VectorKind::kGaussian, VectorKind::kIntegers, VectorKind::kMixedScale, VectorKind::kNearlySame,
    VectorKind::kOneHot,   VectorKind::kDenormal, VectorKind::kTiny,       VectorKind::kLarge};

inline float make_element(VectorKind kind, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> exponent(-12, 12);
  std::uniform_int_distribution<int> byte(0, 255);
  switch (kind) {
    case VectorKind::kGaussian: return normal(random);
    case VectorKind::kIntegers: return static_cast<float>(byte(random));
    case VectorKind::kMixedScale: return normal(random) * std::pow(10.0F, exponent(random));
    case VectorKind::kNearlySame: return 1000.0F + 0.001F * normal(random);
    case VectorKind::kOneHot: return byte(random) < 4 ? 1.0F : 0.0F;
    case VectorKind::kDenormal: return normal(random) * 1e-41F;
    case VectorKind::kTiny: return normal(random) * 3e-23F;
    case VectorKind::kLarge: return normal(random) * 1e16F;
  }
  return 0;
}

inline std::vector<float> make_vector(VectorKind kind, size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> out(count);
  for (float& value : out) value = make_element(kind, random);
  return out;
}

/// Around every vector width and every multiple of it that a loop has a case for.
inline std::vector<size_t> ragged_dimensions() {
  std::vector<size_t> out = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 100, 784, 4096};
  for (const size_t middle : {16, 32, 48, 64, 80, 128, 256, 1024}) {
    for (size_t dim = middle - 1; dim <= middle + 1; ++dim) out.push_back(dim);
  }
  return out;
}

}  // namespace aionbd
