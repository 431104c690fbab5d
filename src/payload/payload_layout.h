// The stored layout of a payload, for the two files that read it in place: tags, loads, and the
// walk over the entries of one object. docs/format.md, "Payload", is the specification.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/bytes.h"

namespace aionbd {

/// First byte of a value. Persistent, never renumber.
enum class ValueTag : uint8_t {
  kNull = 1,
  kFalse = 2,
  kTrue = 3,
  kInt64 = 4,
  kUint64 = 5,  // above INT64_MAX only
  kDouble = 6,
  kString = 7,
  kArray = 8,
  kObject = 9,
};

inline constexpr size_t kKeySizeBytes = sizeof(uint16_t);
inline constexpr size_t kValueSizeBytes = sizeof(uint32_t);

inline bool is_number(ValueTag tag) {
  return tag == ValueTag::kInt64 || tag == ValueTag::kUint64 || tag == ValueTag::kDouble;
}

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

/// One stored value: its tag and its body (for strings, arrays and objects: what follows the size).
struct StoredValue {
  ValueTag tag = ValueTag::kNull;
  Bytes body;
};

/// The value at `at`. Afterwards `at` is behind it.
/// REQUIRES: a checked payload has a value at `at`.
inline StoredValue read_value(const std::byte*& at) {
  const auto tag = load<ValueTag>(at);
  at += sizeof(tag);
  size_t size = 0;
  if (tag >= ValueTag::kString) {
    size = load<uint32_t>(at);
    at += kValueSizeBytes;
  } else if (tag >= ValueTag::kInt64) {
    size = sizeof(uint64_t);
  }
  const std::byte* body = at;
  at += size;
  return {tag, {body, size}};
}

/// The key at `at`. Afterwards `at` is at its value.
/// REQUIRES: a checked payload has an entry at `at`.
inline std::string_view read_key(const std::byte*& at) {
  const size_t size = load<uint16_t>(at);
  const std::byte* key = at + kKeySizeBytes;
  at = key + size;
  return {reinterpret_cast<const char*>(key), size};
}

}  // namespace aionbd
