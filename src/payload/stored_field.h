// The rules by which filters read stored payloads, for the program over payloads (filter.cc) and
// the index of a segment alike: where a dotted path leads, which elements a field has, and what of
// them is equal, or less.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "aionbd/types.h"
#include "base/bytes.h"
#include "payload/payload_layout.h"

namespace aionbd {

/// A comparable value: null, boolean, number or string. `text` is not owned.
struct Scalar {
  ValueTag tag = ValueTag::kNull;
  uint64_t bits = 0;  // of a number
  std::string_view text;
};

template <typename T>
int three_way(T a, T b) {
  return static_cast<int>(a > b) - static_cast<int>(a < b);
}

/// Exact order of an integer and a finite double: the double is split into whole part and fraction,
/// nothing is rounded.
template <typename Integer>
int order_integer_double(Integer a, double b) {
  constexpr int kValueBits = std::numeric_limits<Integer>::digits;  // 63 or 64
  const double limit = std::ldexp(1.0, kValueBits);
  if (b >= limit) return -1;
  if (b < static_cast<double>(std::numeric_limits<Integer>::min())) return 1;
  const auto whole = static_cast<Integer>(b);  // toward zero, in range
  if (a != whole) return a < whole ? -1 : 1;
  return three_way(0.0, b - static_cast<double>(whole));
}

/// -1, 0 or 1 by exact value. REQUIRES: both numbers, and doubles finite.
inline int order_numbers(const Scalar& a, const Scalar& b) {
  const auto as_double = [](const Scalar& x) { return std::bit_cast<double>(x.bits); };
  if (a.tag == b.tag) {
    switch (a.tag) {
      case ValueTag::kInt64:
        return three_way(static_cast<int64_t>(a.bits), static_cast<int64_t>(b.bits));
      case ValueTag::kUint64: return three_way(a.bits, b.bits);
      default: return three_way(as_double(a), as_double(b));
    }
  }
  if (b.tag == ValueTag::kDouble) {
    return a.tag == ValueTag::kInt64
               ? order_integer_double(static_cast<int64_t>(a.bits), as_double(b))
               : order_integer_double(a.bits, as_double(b));
  }
  if (a.tag == ValueTag::kDouble) return -order_numbers(b, a);
  // A kUint64 is above every kInt64: smaller ones are stored as kInt64.
  return a.tag == ValueTag::kInt64 ? -1 : 1;
}

/// A total order in which equal means equal to a filter: null, false, true, numbers, strings.
inline int order_scalars(const Scalar& a, const Scalar& b) {
  const bool a_number = is_number(a.tag);
  if (a_number && is_number(b.tag)) return order_numbers(a, b);
  if (a.tag != b.tag) return a.tag < b.tag ? -1 : 1;  // a number lies between the tags around it
  if (a.tag == ValueTag::kString) return three_way(a.text.compare(b.text), 0);
  return 0;
}

inline bool is_scalar(ValueTag tag) {
  return tag < ValueTag::kArray;
}

/// REQUIRES: is_scalar(stored.tag).
inline Scalar scalar_of(const StoredValue& stored) {
  if (is_number(stored.tag)) return {stored.tag, load<uint64_t>(stored.body.data()), {}};
  return {stored.tag, 0, as_text(stored.body)};
}

/// The scalar that `value` is, for comparing; none when no stored element can equal it.
inline std::optional<Scalar> scalar_of(const Value& value) {
  const Value::Data& data = value.data();
  if (std::holds_alternative<std::nullptr_t>(data)) return Scalar{};
  if (const bool* flag = std::get_if<bool>(&data)) {
    return Scalar{*flag ? ValueTag::kTrue : ValueTag::kFalse, 0, {}};
  }
  if (const int64_t* number = std::get_if<int64_t>(&data)) {
    return Scalar{ValueTag::kInt64, static_cast<uint64_t>(*number), {}};
  }
  if (const uint64_t* number = std::get_if<uint64_t>(&data)) {
    const bool small = *number <= uint64_t{std::numeric_limits<int64_t>::max()};
    return Scalar{small ? ValueTag::kInt64 : ValueTag::kUint64, *number, {}};
  }
  if (const double* number = std::get_if<double>(&data)) {
    if (!std::isfinite(*number)) return std::nullopt;
    return Scalar{ValueTag::kDouble, std::bit_cast<uint64_t>(*number), {}};
  }
  if (const std::string* text = std::get_if<std::string>(&data)) {
    return Scalar{ValueTag::kString, 0, *text};
  }
  return std::nullopt;
}

/// The value at the dotted path `field` of the object `entries`; see the rule in filter.h.
inline std::optional<StoredValue> find_field(Bytes entries, std::string_view field,
                                             size_t first_dot) {
  for (;;) {
    const bool dotted = first_dot != std::string_view::npos;
    const std::string_view head = field.substr(0, dotted ? first_dot : field.size());
    std::optional<StoredValue> below;
    const std::byte* at = entries.data();
    const std::byte* const end = at + entries.size();
    while (at < end) {
      const std::string_view key = read_key(at);
      const StoredValue value = read_value(at);
      if (key == field) return value;
      if (dotted && key == head) below = value;
      // Keys ascend by bytes; comparing the first byte is nearly free and usually enough.
      if (static_cast<uint8_t>(key[0]) > static_cast<uint8_t>(field.empty() ? '\0' : field[0])) {
        break;
      }
    }
    if (!below || below->tag != ValueTag::kObject) return std::nullopt;
    entries = below->body;
    field.remove_prefix(first_dot + 1);
    first_dot = field.find('.');
  }
}

/// Whether `test` holds for some element of `value` (itself, unless it is an array).
template <typename Test>
bool any_element(const StoredValue& value, const Test& test) {
  if (is_scalar(value.tag)) return test(scalar_of(value));
  if (value.tag == ValueTag::kObject) return false;
  const std::byte* at = value.body.data();
  const std::byte* const end = at + value.body.size();
  while (at < end) {
    const StoredValue element = read_value(at);
    if (is_scalar(element.tag) && test(scalar_of(element))) return true;
  }
  return false;
}

}  // namespace aionbd
