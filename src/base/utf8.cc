#include "base/utf8.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace aionbd {

namespace {

constexpr size_t kQuotedBytesMax = 64;  // enough to recognise a key, short enough for a log line

/// One code point at the front of `text` and its length; length 0 when it is malformed.
struct CodePoint {
  uint32_t value = 0;
  size_t size = 0;
};

CodePoint first_code_point(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  // Leads 0x80-0xC1 are continuations or overlong forms; 0xF5 and above are past U+10FFFF.
  if (lead < 0xC2 || lead > 0xF4) return {};
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < size) return {};
  uint32_t value = lead & (0x7FU >> size);
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return {};
    value = (value << 6) | (byte(i) & 0x3FU);
  }
  if (size == 3 && (value < 0x800 || (value >= 0xD800 && value <= 0xDFFF))) return {};
  if (size == 4 && (value < 0x10000 || value > 0x10FFFF)) return {};
  return {value, size};
}

bool is_white_space(uint32_t value) {
  return (value >= 0x09 && value <= 0x0D) || value == 0x20 || value == 0x85 || value == 0xA0 ||
         value == 0x1680 || (value >= 0x2000 && value <= 0x200A) || value == 0x2028 ||
         value == 0x2029 || value == 0x202F || value == 0x205F || value == 0x3000;
}

}  // namespace

bool is_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t word = 0;
    if (text.size() - i >= sizeof(word)) {
      std::memcpy(&word, text.data() + i, sizeof(word));
      if ((word & 0x8080808080808080U) == 0) {
        i += sizeof(word);
        continue;
      }
    }
    const CodePoint point = first_code_point(text.substr(i));
    if (point.size == 0) return false;
    i += point.size;
  }
  return true;
}

bool is_blank(std::string_view text) {
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    if (point.size == 0 || !is_white_space(point.value)) return false;
    text.remove_prefix(point.size);
  }
  return true;
}

std::string quoted_text(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  while (!text.empty() && out.size() <= kQuotedBytesMax) {
    const CodePoint point = first_code_point(text);
    const bool control = point.value < 0x20 || (point.value >= 0x7F && point.value < 0xA0);
    const size_t taken = point.size == 0 ? 1 : point.size;
    if (point.size == 0 || control) {
      for (const char raw : text.substr(0, taken)) {
        const auto byte = static_cast<uint8_t>(raw);
        out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
      }
    } else {
      if (point.value == '"' || point.value == '\\') out += '\\';
      out += text.substr(0, taken);
    }
    text.remove_prefix(taken);
  }
  out += text.empty() ? "\"" : "\"...";
  return out;
}

}  // namespace aionbd
