// Little-endian encoding of fixed-width fields. A Decoder never reads past its end: a short read
// marks it failed, yields zeros from then on, and `ok()` tells.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace aionbd {

static_assert(std::endian::native == std::endian::little,
              "stored integers and floats are little-endian and used in place");

using Bytes = std::span<const std::byte>;

inline Bytes as_bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Appends to a string it does not own. Thread safety: single owner.
class Encoder {
 public:
  explicit Encoder(std::string* out) : out_(out) {}

  template <typename T>
  void put(T value) {
    static_assert(std::is_trivially_copyable_v<T> &&
                  (std::is_arithmetic_v<T> || std::is_enum_v<T>));
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    out_->append(raw, sizeof(T));
  }
  void put_raw(const void* data, size_t size) {
    out_->append(static_cast<const char*>(data), size);
  }
  /// u32 length, then the bytes.
  void put_string(std::string_view text) {
    put(static_cast<uint32_t>(text.size()));
    out_->append(text);
  }
  /// Zero bytes up to the next multiple of `alignment` of the whole string.
  void pad_to(size_t alignment) {
    const size_t rest = out_->size() % alignment;
    if (rest != 0) out_->append(alignment - rest, '\0');
  }
  size_t size() const { return out_->size(); }

 private:
  std::string* out_;
};

/// Reads from bytes it does not own. Thread safety: single owner.
class Decoder {
 public:
  explicit Decoder(Bytes bytes) : bytes_(bytes) {}

  template <typename T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T> &&
                  (std::is_arithmetic_v<T> || std::is_enum_v<T>));
    T value{};
    if (remaining() < sizeof(T)) {
      fail();
      return value;
    }
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  /// `size` bytes in place; empty and failed when fewer remain.
  Bytes get_raw(size_t size) {
    if (remaining() < size) {
      fail();
      return {};
    }
    const Bytes out = bytes_.subspan(position_, size);
    position_ += size;
    return out;
  }
  std::string_view get_string() {
    const auto size = get<uint32_t>();
    return as_text(get_raw(size));
  }
  /// Skips to the next multiple of `alignment`; the skipped bytes must be zero.
  void skip_padding(size_t alignment) {
    while (ok() && position_ % alignment != 0) {
      if (get<uint8_t>() != 0) fail();
    }
  }

  size_t remaining() const { return ok_ ? bytes_.size() - position_ : 0; }
  size_t position() const { return position_; }
  bool ok() const { return ok_; }
  /// True when nothing failed and nothing is left.
  bool finished() const { return ok_ && position_ == bytes_.size(); }
  void fail() { ok_ = false; }

 private:
  Bytes bytes_;
  size_t position_ = 0;
  bool ok_ = true;
};

}  // namespace aionbd
