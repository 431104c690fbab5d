// One pass, no look back; what is no number ends it.
//
// Source: Clinger, "How to Read Floating Point Numbers Accurately", PLDI 1990. Tried and dropped:
// finding the commas here instead of taking the parser's marks (each number then waits for the
// length of the one before it); reading up to sixteen digits of a fraction without a branch (no
// faster: the loop's branch is guessed well enough).
#include "server/float_text.h"

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

namespace aionbd {
namespace {

/// 10^0 .. 10^22, the powers of ten that are exact doubles.
constexpr std::array<double, 23> kPowersOfTen = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr std::array<double, 2> kSigns = {1, -1};
constexpr std::array<float, 8> kShortPowersOfTen = {1e0F, 1e1F, 1e2F, 1e3F, 1e4F, 1e5F, 1e6F, 1e7F};
constexpr std::array<float, 2> kShortSigns = {1, -1};
constexpr int kExactPowerMax = 22;
constexpr std::array<uint64_t, 9> kWholePowersOfTen = {1,      10,      100,      1000,     10000,
                                                       100000, 1000000, 10000000, 100000000};
constexpr uint64_t kZeros = 0x3030303030303030U;  // eight times '0'
constexpr uint32_t kShortZeros = 0x30303030U;
constexpr size_t kShortDigitsMax = 4;
/// The smallest whole number of so many digits.
constexpr std::array<uint32_t, kShortDigitsMax + 1> kShortLeast = {0, 0, 10, 100, 1000};
constexpr uint64_t kExactMantissaMax = uint64_t{1} << 53;
/// Digits that cannot overflow the 64-bit mantissa.
constexpr size_t kDigitsMax = 19;
/// Digits of an exponent; more is out of the range of exact powers anyway.
constexpr size_t kExponentDigitsMax = 3;

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

uint64_t word_at(const char* p) {
  uint64_t word = 0;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

/// The top bit of each byte that is not 0..9, by one comparison of all of them. Behind the first
/// such byte there may be bits too many.
uint64_t other_than_digits(uint64_t digits) {
  return ((digits + 0x7676767676767676U) | digits) & 0x8080808080808080U;
}

/// Digits at the front of eight characters.
size_t leading_digits(uint64_t word) {
  return static_cast<size_t>(std::countr_zero(other_than_digits(word ^ kZeros))) / 8;  // none: 64
}

/// The number of eight digits 0..9, the first in the lowest byte: pairs, then fours, then eights.
uint64_t number_of_digits(uint64_t word) {
  word = (word * 10 + (word >> 8)) & 0x00FF00FF00FF00FFU;
  word = (word * 100 + (word >> 16)) & 0x0000FFFF0000FFFFU;
  return (word * 10000 + (word >> 32)) & 0xFFFFFFFFU;
}

/// Reads digits into `mantissa`; returns how many. Over kDigitsMax in all, the mantissa is wrong.
///
/// Eight at a time, without a branch on how many there are: lengths of numbers are what a branch
/// predictor cannot guess (a third of the time, with one branch per digit).
size_t read_digits(const char*& p, uint64_t& mantissa) {
  size_t digits = 0;
  while (true) {
    const uint64_t word = word_at(p);
    const size_t count = leading_digits(word);
    if (count == 0) return digits;
    const uint64_t digits_only = (word & 0x0F0F0F0F0F0F0F0FU) << (64 - 8 * count);
    mantissa = mantissa * kWholePowersOfTen[count] + number_of_digits(digits_only);
    digits += count;
    p += count;
    if (count < sizeof(word)) return digits;
  }
}

/// Reads "e-12" into `exponent`, one too long as out of range; false if malformed.
bool read_exponent(const char*& p, int& exponent) {
  ++p;
  const bool negative = *p == '-';
  if (negative || *p == '+') ++p;
  uint64_t value = 0;
  const size_t digits = read_digits(p, value);
  if (digits == 0) return false;
  if (digits > kExponentDigitsMax) value = 1000;
  exponent += negative ? -static_cast<int>(value) : static_cast<int>(value);
  return true;
}

/// The number that `text` spells with nothing but blanks behind it, by Clinger's rule where it
/// holds (mantissa and power of ten are exact doubles, so that one division or product rounds
/// once), else by the standard library. False if it is no number, or beyond f32.
/// REQUIRES: a character that no number has behind `text`.
bool read_number(std::string_view text, float& out) {
  const char* p = text.data();
  const bool negative = *p == '-';
  p += static_cast<int>(negative);  // no branch: signs are random
  uint64_t mantissa = 0;
  const bool leading_zero = *p == '0';
  size_t digits = read_digits(p, mantissa);
  if (digits == 0 || (leading_zero && digits > 1)) return false;
  int exponent = 0;
  if (*p == '.') {
    ++p;
    const size_t fraction = read_digits(p, mantissa);
    if (fraction == 0) return false;
    digits += fraction;
    exponent = -static_cast<int>(fraction);
  }
  if (*p == 'e' || *p == 'E') {
    if (!read_exponent(p, exponent)) return false;
  }
  const char* const end = text.data() + text.size();
  const char* const number_end = p;
  while (p < end && is_space(*p)) ++p;
  if (p != end) return false;
  double value = 0;
  if (digits > kDigitsMax || mantissa > kExactMantissaMax || exponent < -kExactPowerMax ||
      exponent > kExactPowerMax) {
    const auto parsed = std::from_chars(text.data(), number_end, value);
    if (parsed.ec != std::errc() || parsed.ptr != number_end) return false;
    out = static_cast<float>(value);
    return std::isfinite(out);
  }
  value = static_cast<double>(mantissa);
  if (exponent < 0) {
    value /= kPowersOfTen[static_cast<size_t>(-exponent)];
  } else {
    value *= kPowersOfTen[static_cast<size_t>(exponent)];
  }
  // At most 2^53 * 10^22: never beyond f32.
  out = static_cast<float>(value * kSigns[static_cast<size_t>(negative)]);
  return true;
}

/// A whole number of one to four digits: what pixels and other small integers are. One branch for
/// the length and the digits: among numbers with a point, either alone could not be guessed.
bool read_short_whole_number(const char* text, size_t length, float& out) {
  uint32_t digits = 0;
  std::memcpy(&digits, text, sizeof(digits));
  digits = (digits ^ kShortZeros) << (32 - 8 * length) % 32;  // zeros before it, and nothing behind
  const uint32_t others = ((digits + 0x76767676U) | digits) & 0x80808080U;
  if ((others != 0) | (length - 1 >= kShortDigitsMax)) return false;
  digits = (digits * 10 + (digits >> 8)) & 0x00FF00FFU;
  digits = (digits * 100 + (digits >> 16)) & 0xFFFFU;
  out = static_cast<float>(static_cast<int32_t>(digits));
  return digits >= kShortLeast[length];  // no leading zero
}

/// A number of at most eight characters behind its sign, without exponent: what pixels and other
/// small integers are, also where the client writes them with a point ("255.0"). Does without a
/// branch on the length and on the place of the point, which differ from number to number.
bool read_short_number(const char* text, size_t length, float& out) {
  const bool negative = *text == '-';
  text += static_cast<size_t>(negative);
  length -= static_cast<size_t>(negative);
  if (length - 1 >= sizeof(uint64_t)) return false;
  // Zeros before it, and nothing behind.
  uint64_t digits = (word_at(text) ^ kZeros) << (64 - 8 * length);
  size_t fraction = 0;
  if (const uint64_t others = other_than_digits(digits); others != 0) {
    const int point = std::countr_zero(others) - 7;  // bits before it
    if ((others & (others - 1)) != 0 || (digits >> point & 0xFF) != ('.' ^ '0')) return false;
    fraction = 7 - static_cast<size_t>(point) / 8;
    if (fraction == 0 || --length == fraction) return false;
    const uint64_t before = (uint64_t{1} << point) - 1;
    digits = (digits & before) << 8 | (digits & ~(before << 8 | 0xFF));  // the point taken out
  }
  if ((*text == '0') & (length - fraction > 1)) return false;
  // Both exact in f32 (below 2^24) where there is a fraction, so that the division rounds once.
  const auto number = static_cast<float>(static_cast<int32_t>(number_of_digits(digits)));
  out = number / kShortPowersOfTen[fraction] * kShortSigns[static_cast<size_t>(negative)];
  return true;
}

}  // namespace

const uint32_t* read_plain_floats(std::string_view body, const uint32_t* marks, size_t values_max,
                                  std::vector<float>& out) {
  const size_t size_before = out.size();
  out.resize(size_before + values_max);  // room to write without asking for it each time
  float* next = out.data() + size_before;
  float* const last = next + values_max;
  for (const uint32_t* mark = marks + 1; next < last; mark += 2) {
    const size_t begin = mark[0];
    const size_t end = mark[1];
    if (end >= body.size()) break;
    const char* const text = body.data() + begin;
    const size_t length = end - begin;
    if (!read_short_whole_number(text, length, *next) && !read_short_number(text, length, *next) &&
        !read_number({text, length}, *next))
      break;
    ++next;
    const char separator = body[end];
    if (separator == ',') continue;
    if (separator != ']') break;
    out.resize(static_cast<size_t>(next - out.data()));
    return mark + 1;
  }
  out.resize(size_before);
  return nullptr;
}

}  // namespace aionbd
