// Encoding, checking and decoding the binary form of payloads (docs/format.md, "Payload").
//
// All three walk recursively, one frame per nesting level; each level is counted before it is
// entered, so the stack never holds more than kNestingMax of them.
#include "payload/payload.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <utility>
#include <variant>

#include "base/utf8.h"
#include "payload/payload_layout.h"

namespace aionbd {

namespace {

template <typename... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <typename... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;  // clang 14 does not deduce it by itself

/// Appends values to a string and remembers where it is, to name the key in an error.
/// Thread safety: single owner.
class PayloadEncoder {
 public:
  explicit PayloadEncoder(std::string* out) : bytes_(out), out_(out) {}

  Status put_entries(const Value::Object& object) {
    if (depth_ == kNestingMax) {
      return invalid_argument("payload is nested too deeply: at most " +
                              std::to_string(kNestingMax) + " levels, at " + path());
    }
    ++depth_;
    for (const auto& [key, value] : object) {
      place() = {&key, 0};
      RETURN_IF_ERROR(put_key(key));
      RETURN_IF_ERROR(put_value(value));
    }
    --depth_;
    return {};
  }

 private:
  /// A step of the path from the payload to the current value.
  struct Place {
    const std::string* key = nullptr;  // null: `index` of an array
    size_t index = 0;
  };
  Place& place() { return places_[depth_ - 1]; }

  Status put_key(const std::string& key) {
    if (key.size() > kPayloadKeyBytesMax) {
      return invalid_argument("payload key is too long: at most " +
                              std::to_string(kPayloadKeyBytesMax) + " bytes, got " +
                              std::to_string(key.size()) + ", at " + path());
    }
    if (!is_utf8(key)) return invalid_argument("payload key is not UTF-8: " + path());
    if (is_blank(key)) return invalid_argument("payload key is blank: " + path());
    out_.put(static_cast<uint16_t>(key.size()));
    out_.put_raw(key.data(), key.size());
    return {};
  }

  Status put_value(const Value& value) {
    RETURN_IF_ERROR(std::visit(
        Overloaded{
            [&](std::nullptr_t) { return put_tagged(ValueTag::kNull); },
            [&](bool flag) { return put_tagged(flag ? ValueTag::kTrue : ValueTag::kFalse); },
            [&](int64_t number) { return put_tagged(ValueTag::kInt64, number); },
            [&](uint64_t number) {
              const bool small = number <= uint64_t{std::numeric_limits<int64_t>::max()};
              return put_tagged(small ? ValueTag::kInt64 : ValueTag::kUint64, number);
            },
            [&](double number) {
              if (!std::isfinite(number)) {
                return invalid_argument("payload number is not finite: " + path());
              }
              return put_tagged(ValueTag::kDouble, number);
            },
            [&](const std::string& text) { return put_string(text); },
            [&](const Value::Array& array) {
              return put_sized(ValueTag::kArray, [&] { return put_elements(array); });
            },
            [&](const Value::Object& object) {
              return put_sized(ValueTag::kObject, [&] { return put_entries(object); });
            },
        },
        value.data()));
    // Here rather than once at the end, so that a huge payload is not first encoded whole.
    return out_.size() > kPayloadBytesMax ? too_large() : Status();
  }

  Status put_tagged(ValueTag tag) {
    out_.put(tag);
    return {};
  }
  template <typename T>
  Status put_tagged(ValueTag tag, T body) {
    out_.put(tag);
    out_.put(body);
    return {};
  }

  Status put_string(const std::string& text) {
    if (text.size() > kPayloadBytesMax) return too_large();
    if (!is_utf8(text)) return invalid_argument("payload string is not UTF-8: " + path());
    out_.put(ValueTag::kString);
    out_.put_string(text);
    return {};
  }

  Status put_elements(const Value::Array& array) {
    if (depth_ == kNestingMax) {
      return invalid_argument("payload is nested too deeply: at most " +
                              std::to_string(kNestingMax) + " levels, at " + path());
    }
    ++depth_;
    for (size_t i = 0; i < array.size(); ++i) {
      place() = {nullptr, i};
      RETURN_IF_ERROR(put_value(array[i]));
    }
    --depth_;
    return {};
  }

  /// `put_body` between a size that is filled in afterwards.
  template <typename PutBody>
  Status put_sized(ValueTag tag, const PutBody& put_body) {
    out_.put(tag);
    const size_t size_at = out_.size();
    out_.put(uint32_t{0});
    RETURN_IF_ERROR(put_body());
    const auto size = static_cast<uint32_t>(out_.size() - size_at - kValueSizeBytes);
    std::memcpy(bytes_->data() + size_at, &size, sizeof(size));
    return {};
  }

  Status too_large() const {
    return invalid_argument("payload is too large: at most " + std::to_string(kPayloadBytesMax) +
                            " bytes encoded, exceeded at " + path());
  }

  /// "a.b[2].c", quoted, of the value being encoded.
  std::string path() const {
    std::string text;
    for (size_t i = 0; i < depth_; ++i) {
      if (places_[i].key == nullptr) {
        text += '[' + std::to_string(places_[i].index) + ']';
      } else {
        if (i > 0) text += '.';
        text += *places_[i].key;
      }
    }
    return quoted_text(text);
  }

  std::string* bytes_;
  Encoder out_;
  std::array<Place, kNestingMax> places_;
  size_t depth_ = 0;
};

/// Checks untrusted bytes. Thread safety: single owner.
class PayloadChecker {
 public:
  explicit PayloadChecker(Bytes payload) : begin_(payload.data()) {}

  Status check_entries(Bytes entries, size_t depth) const {
    if (depth > kNestingMax) return damaged("nesting too deep", entries);
    std::string_view previous;  // a valid key is never empty
    while (!entries.empty()) {
      const Bytes entry = entries;
      std::string_view key;
      if (!take_key(&entries, &key)) return damaged("key cut short", entry);
      if (key.empty() || key.size() > kPayloadKeyBytesMax) return damaged("bad key size", entry);
      if (!is_utf8(key)) return damaged("key is not UTF-8", entry);
      if (is_blank(key)) return damaged("blank key", entry);
      if (key <= previous) return damaged("keys out of order", entry);
      previous = key;
      RETURN_IF_ERROR(check_value(&entries, depth));
    }
    return {};
  }

 private:
  Status check_elements(Bytes elements, size_t depth) const {
    if (depth > kNestingMax) return damaged("nesting too deep", elements);
    while (!elements.empty()) RETURN_IF_ERROR(check_value(&elements, depth));
    return {};
  }

  /// Checks the value at the front of `bytes` and removes it. `depth`: of what contains it.
  Status check_value(Bytes* bytes, size_t depth) const {
    const Bytes value = *bytes;
    Decoder decoder(value);
    const auto tag = decoder.get<ValueTag>();
    switch (tag) {
      case ValueTag::kNull:
      case ValueTag::kFalse:
      case ValueTag::kTrue: break;
      case ValueTag::kInt64: decoder.get<int64_t>(); break;
      case ValueTag::kUint64: {
        const auto number = decoder.get<uint64_t>();
        if (decoder.ok() && number <= uint64_t{std::numeric_limits<int64_t>::max()}) {
          return damaged("unsigned number that fits a signed one", value);
        }
        break;
      }
      case ValueTag::kDouble:
        if (!std::isfinite(decoder.get<double>())) return damaged("number is not finite", value);
        break;
      case ValueTag::kString:
        if (!is_utf8(decoder.get_string())) return damaged("string is not UTF-8", value);
        break;
      case ValueTag::kArray:
      case ValueTag::kObject: {
        const Bytes body = as_bytes_of(decoder.get_string());
        if (!decoder.ok()) break;
        RETURN_IF_ERROR(tag == ValueTag::kArray ? check_elements(body, depth + 1)
                                                : check_entries(body, depth + 1));
        break;
      }
      default: return damaged("unknown tag", value);
    }
    if (!decoder.ok()) return damaged("value cut short", value);
    *bytes = value.subspan(decoder.position());
    return {};
  }

  static bool take_key(Bytes* bytes, std::string_view* key) {
    Decoder decoder(*bytes);
    const auto size = decoder.get<uint16_t>();
    *key = as_text(decoder.get_raw(size));
    if (!decoder.ok() || decoder.remaining() == 0) return false;
    *bytes = bytes->subspan(decoder.position());
    return true;
  }

  Status damaged(std::string_view what, Bytes at) const {
    return corruption("payload is damaged: " + std::string(what) + ", offset " +
                      std::to_string(at.data() - begin_));
  }

  const std::byte* begin_;
};

Value::Object decode_entries(Bytes entries);

Value decode_value(const std::byte*& at) {
  const StoredValue stored = read_value(at);
  switch (stored.tag) {
    case ValueTag::kNull: return nullptr;
    case ValueTag::kFalse: return false;
    case ValueTag::kTrue: return true;
    case ValueTag::kInt64: return load<int64_t>(stored.body.data());
    case ValueTag::kUint64: return load<uint64_t>(stored.body.data());
    case ValueTag::kDouble: return load<double>(stored.body.data());
    case ValueTag::kString: return as_text(stored.body);
    case ValueTag::kArray: {
      Value::Array array;
      const std::byte* element = stored.body.data();
      const std::byte* const end = element + stored.body.size();
      while (element < end) array.push_back(decode_value(element));
      return array;
    }
    case ValueTag::kObject: return decode_entries(stored.body);
  }
  return nullptr;
}

Value::Object decode_entries(Bytes entries) {
  Value::Object object;
  const std::byte* at = entries.data();
  const std::byte* const end = at + entries.size();
  while (at < end) {
    const std::string_view key = read_key(at);
    object.emplace_hint(object.end(), key, decode_value(at));
  }
  return object;
}

}  // namespace

Result<std::string> encode_payload(const Payload& payload) {
  std::string out;
  RETURN_IF_ERROR(PayloadEncoder(&out).put_entries(payload));
  return out;
}

Status check_payload(Bytes bytes) {
  if (bytes.size() > kPayloadBytesMax) {
    return corruption("payload is damaged: " + std::to_string(bytes.size()) + " bytes, at most " +
                      std::to_string(kPayloadBytesMax));
  }
  return PayloadChecker(bytes).check_entries(bytes, 1);
}

Payload decode_payload(Bytes bytes) {
  return decode_entries(bytes);
}

}  // namespace aionbd
