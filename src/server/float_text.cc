// One pass, no look back; a number that is not plain ends it.
#include "server/float_text.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace aionbd {
namespace {

/// 10^0 .. 10^22, the powers of ten that are exact doubles.
constexpr std::array<double, 23> kPowersOfTen = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr std::array<uint64_t, 8> kWholePowersOfTen = {1,     10,     100,     1000,
                                                       10000, 100000, 1000000, 10000000};
constexpr uint64_t kExactMantissaMax = uint64_t{1} << 53;
/// Digits that cannot overflow the 64-bit mantissa.
constexpr int kDigitsMax = 19;
/// Digits of an exponent; more is out of the range of exact powers anyway.
constexpr int kExponentDigitsMax = 3;

bool is_blank(char c) {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

unsigned digit_of(char c) {
  return static_cast<unsigned char>(c) - unsigned{'0'};
}

/// Digits at the front of eight characters, by one comparison of all of them.
int leading_digits(uint64_t word) {
  const uint64_t digits = word ^ 0x3030303030303030U;  // 0..9 where there was a digit
  const uint64_t others = ((digits + 0x7676767676767676U) | digits) & 0x8080808080808080U;
  return others == 0 ? 8 : std::countr_zero(others) / 8;
}

/// The number that the first `count` (1..8) characters spell: pairs, then fours, then eights.
uint64_t number_of_digits(uint64_t word, int count) {
  word = (word & 0x0F0F0F0F0F0F0F0FU) << (64 - 8 * count);
  word = (word * 10 + (word >> 8)) & 0x00FF00FF00FF00FFU;
  word = (word * 100 + (word >> 16)) & 0x0000FFFF0000FFFFU;
  return (word * 10000 + (word >> 32)) & 0xFFFFFFFFU;
}

/// Reads digits into `mantissa`; returns how many. Stops, as too many, one beyond `most`.
///
/// Up to seven, the usual case, without a branch on how many: lengths of numbers are what a branch
/// predictor cannot guess (a third of the time, with one branch per digit).
int read_digits(const char*& p, uint64_t& mantissa, int most) {
  uint64_t word = 0;
  std::memcpy(&word, p, sizeof(word));
  const int count = leading_digits(word);
  if (count >= 1 && count <= 7 && count <= most) {
    mantissa =
        mantissa * kWholePowersOfTen[static_cast<size_t>(count)] + number_of_digits(word, count);
    p += count;
    return count;
  }
  const char* const first = p;
  for (unsigned digit; (digit = digit_of(*p)) <= 9 && p - first <= most; ++p) {
    mantissa = mantissa * 10 + digit;
  }
  return static_cast<int>(p - first);
}

/// Reads "e-12" into `exponent`; false if malformed or too long.
bool read_exponent(const char*& p, int& exponent) {
  ++p;
  const bool negative = *p == '-';
  if (negative || *p == '+') ++p;
  uint64_t value = 0;
  const int digits = read_digits(p, value, kExponentDigitsMax);
  if (digits == 0 || digits > kExponentDigitsMax) return false;
  exponent += negative ? -static_cast<int>(value) : static_cast<int>(value);
  return true;
}

/// One number at `p`, which moves behind it.
bool read_plain_number(const char*& p, float& out) {
  // One digit and a comma: the zeros of sparse data, which come in runs.
  if (p[1] == ',' && digit_of(*p) <= 9) {
    out = static_cast<float>(digit_of(*p));
    ++p;
    return true;
  }
  const bool negative = *p == '-';
  if (negative) ++p;
  uint64_t mantissa = 0;
  const bool leading_zero = *p == '0';
  int digits = read_digits(p, mantissa, kDigitsMax);
  if (digits == 0 || (leading_zero && digits > 1)) return false;
  int exponent = 0;
  if (*p == '.') {
    ++p;
    const int fraction = digits > kDigitsMax ? 0 : read_digits(p, mantissa, kDigitsMax);
    if (fraction == 0) return false;
    digits += fraction;
    exponent = -fraction;
  }
  if (digits > kDigitsMax || mantissa > kExactMantissaMax) return false;
  if (*p == 'e' || *p == 'E') {
    if (!read_exponent(p, exponent)) return false;
  }
  auto value = static_cast<double>(mantissa);
  if (exponent < 0) {
    if (exponent < -22) return false;
    value /= kPowersOfTen[static_cast<size_t>(-exponent)];
  } else if (exponent > 0) {
    if (exponent > 22) return false;
    value *= kPowersOfTen[static_cast<size_t>(exponent)];
  }
  // At most 2^53 * 10^22: never beyond f32.
  out = static_cast<float>(negative ? -value : value);
  return true;
}

}  // namespace

bool read_plain_floats(const char* text, const char* end, size_t values_max,
                       std::vector<float>& out) {
  const size_t size_before = out.size();
  out.resize(size_before + values_max);  // room to write without asking for it each time
  float* next = out.data() + size_before;
  const float* const last = next + values_max;
  const char* p = text + 1;  // behind '['
  const auto skip_blanks = [&] {
    while (p < end && is_blank(*p)) ++p;
  };
  skip_blanks();
  while (p < end && next < last && read_plain_number(p, *next)) {
    ++next;
    if (*p != ',') skip_blanks();
    if (p >= end) break;
    if (*p == ']') {
      out.resize(static_cast<size_t>(next - out.data()));
      return true;
    }
    if (*p != ',') break;
    ++p;
    if (is_blank(*p)) skip_blanks();
  }
  out.resize(size_before);
  return false;
}

}  // namespace aionbd
