// How the values of stored rows lie in memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace aionbd {

/// Row-major values, readable in place: floats, or bytes where all of them are integers that fit.
/// Both are exact: a distance to bytes has the bits of the distance to the floats they stand for.
struct RowValues {
  const float* floats = nullptr;
  const uint8_t* bytes = nullptr;  // unless null, value i is base + bytes[i], and `floats` is null
  float base = 0;                  // an integer, |base| < 2^23

  RowValues() = default;
  /// Implicit: most rows are floats.
  RowValues(const float* values) : floats(values) {}  // NOLINT(google-explicit-constructor)
  RowValues(const uint8_t* values, float lowest) : bytes(values), base(lowest) {}

  size_t value_bytes() const { return bytes == nullptr ? sizeof(float) : 1; }
  const std::byte* data() const {
    return bytes == nullptr ? reinterpret_cast<const std::byte*>(floats)
                            : reinterpret_cast<const std::byte*>(bytes);
  }
  float at(size_t i) const {
    return bytes == nullptr ? floats[i] : base + static_cast<float>(bytes[i]);
  }
  /// Those from value `first` on.
  RowValues from(size_t first) const {
    return bytes == nullptr ? RowValues(floats + first) : RowValues(bytes + first, base);
  }
  /// The first n values.
  void copy(size_t n, float* out) const {
    if (bytes == nullptr) {
      std::copy_n(floats, n, out);
    } else {
      for (size_t i = 0; i < n; ++i) out[i] = at(i);
    }
  }
};

}  // namespace aionbd
