#include "server/float_text.h"

#include <gtest/gtest.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>

#include "base/rng.h"
#include "base/sanitized.h"

namespace aionbd {
namespace {

constexpr int kTexts = kSanitized ? 5000 : 100000;  // random ones of a test

constexpr size_t kPadding = 64;

/// What a structural parser finds: brackets, commas and where each run of other characters begins.
std::vector<uint32_t> marks_of(std::string_view text) {
  std::vector<uint32_t> out;
  bool in_scalar = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool structural = std::string_view("[]{},:").find(text[i]) != std::string_view::npos;
    const bool blank = std::string_view(" \n\r\t").find(text[i]) != std::string_view::npos;
    if (structural || (!blank && !in_scalar)) out.push_back(static_cast<uint32_t>(i));
    in_scalar = !structural && !blank;
  }
  out.insert(out.end(), 2, static_cast<uint32_t>(text.size()));
  return out;
}

/// -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?
bool is_json_number(std::string_view text) {
  const auto take = [&](std::string_view any_of) {
    const bool there = !text.empty() && any_of.find(text.front()) != std::string_view::npos;
    if (there) text.remove_prefix(1);
    return there;
  };
  const auto digits = [&] {
    size_t n = 0;
    while (take("0123456789")) ++n;
    return n;
  };
  take("-");
  if (!take("0") && digits() == 0) return false;
  if (take(".") && digits() == 0) return false;
  if (take("eE")) {
    take("+-");
    if (digits() == 0) return false;
  }
  return text.empty();
}

bool read(std::string text, std::vector<float>& out, size_t values_max = 100) {
  const std::vector<uint32_t> marks = marks_of(text);
  const size_t size = text.size();
  text.append(kPadding, '7');  // a reader that does not stop at the end would take these
  const std::string_view body = std::string_view(text).substr(0, size);
  const uint32_t* const end = read_plain_floats(body, marks.data(), values_max, out);
  if (end == nullptr) return false;
  EXPECT_EQ(body[*end], ']') << body;
  EXPECT_EQ(body.find(']'), *end) << body;
  return true;
}

/// Reads one number and compares its bits with the standard library's double, rounded to f32.
/// False when it was left to the parser.
bool reads_as_standard(std::string_view number) {
  std::vector<float> out;
  if (!read("[" + std::string(number) + "]", out)) return false;
  double parsed = 0;
  const auto end = std::from_chars(number.data(), number.data() + number.size(), parsed);
  const auto want = static_cast<float>(parsed);
  EXPECT_EQ(end.ptr, number.data() + number.size()) << number;
  EXPECT_EQ(std::bit_cast<uint32_t>(out.at(0)), std::bit_cast<uint32_t>(want)) << number;
  return true;
}

TEST(FloatTextTest, ReadsWhatAParserReads) {
  std::vector<float> out;
  ASSERT_TRUE(read("[0, -0.0 ,1,255\n,0.1,-12.5e1,3E-4,16777217,9007199254740992]", out));
  const std::vector<float> want = {
      0.0F, -0.0F, 1.0F, 255.0F, 0.1F, -125.0F, 3e-4F, 16777216.0F, 9007199254740992.0F};
  ASSERT_EQ(out, want);
  EXPECT_TRUE(std::signbit(out[1]));
  ASSERT_TRUE(read("[7]", out, 1));
  EXPECT_EQ(out.back(), 7.0F);
}

TEST(FloatTextTest, StopsAtItsOwnBracket) {
  const std::string text = "{\"v\":[1,2],\"w\":[3]}";
  const std::vector<uint32_t> marks = {0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 17, 18, 19, 19};
  const std::string padded = text + std::string(kPadding, '7');
  std::vector<float> out;
  const uint32_t* const end =
      read_plain_floats(std::string_view(padded).substr(0, text.size()), &marks[3], 100, out);
  ASSERT_EQ(end, &marks[7]);
  EXPECT_EQ(out, (std::vector<float>{1.0F, 2.0F}));
}

TEST(FloatTextTest, LeavesToTheParserWhatItIsNotMadeFor) {
  const char* const texts[] = {"[]",
                               "[1,]",
                               "[,1]",
                               "[1 2]",
                               "[01]",
                               "[1.]",
                               "[.5]",
                               "[+1]",
                               "[1e]",
                               "[1e+]",
                               "[null]",
                               "[\"1\"]",
                               "[1",
                               "[1,",
                               "[[1]]",
                               "[1.2.3]",
                               "[--1]",
                               "[-]",
                               "[NaN]",
                               "[1}",
                               "[00]",
                               "[-01]",
                               "[0123]",
                               "[01.5]",
                               "[-00.5]",
                               "[.]",
                               "[-.5]",
                               "[-12.]",
                               "[1..2]",
                               "[12.5.]",
                               "[1/2]",
                               "[12.3 4]",
                               "[1234x]",
                               "[1x,2]",
                               "[12345678x]",
                               "[1.5x]",
                               "[1.5 2]",
                               "[1 x]",
                               "[1:2]",
                               "[1{2]",
                               "[1,,2]",
                               "[0x10]",
                               "[1e5.5]",
                               "[1e+-5]",
                               "[1.e5]",
                               "[infinity]",
                               "[1e999]",
                               "[1e-999]",
                               "[3.5e38]",
                               "[-1e39]",
                               "[123456789012345678901234567890123456789012]",
                               "[1e99999999999999999999]"};
  for (const char* text : texts) {
    std::vector<float> out = {42.0F};
    EXPECT_FALSE(read(text, out)) << text;
    EXPECT_EQ(out, std::vector<float>{42.0F}) << text;
  }
  std::vector<float> out;
  EXPECT_FALSE(read("[1,2,3]", out, 2));
  EXPECT_TRUE(out.empty());
}

TEST(FloatTextTest, EveryShortWholeNumber) {
  for (int i = 0; i < 120000; ++i) {
    ASSERT_TRUE(reads_as_standard(std::to_string(i)));
    ASSERT_TRUE(reads_as_standard("-" + std::to_string(i)));
  }
}

TEST(FloatTextTest, EveryPlaceOfThePointInAShortNumber) {
  for (int digits = 2; digits <= 8; ++digits) {
    for (int point = 1; point < digits; ++point) {
      Rng rng(static_cast<uint64_t>(digits * 8 + point));
      for (int i = 0; i < kTexts / 50; ++i) {
        std::string text;
        for (int k = 0; k < digits; ++k) text += static_cast<char>('0' + rng.below(10));
        text.insert(static_cast<size_t>(point), 1, '.');
        std::vector<float> out;
        const bool taken = text.front() != '0' || point == 1;
        ASSERT_EQ(read("[" + text + "]", out), taken) << text;
        if (!taken) continue;
        ASSERT_TRUE(reads_as_standard(text)) << text;
        ASSERT_TRUE(reads_as_standard("-" + text)) << text;
      }
    }
  }
}

// The rounding of double and then of float: numbers at, and one digit beside, the middle between
// two neighbours, and the ends of both ranges.
TEST(FloatTextTest, RoundsAdversarialNumbersAsTheStandardDoes) {
  for (const char* text : {"16777216",
                           "16777217",
                           "16777219",
                           "16777217.000000001",
                           "9007199254740991",
                           "9007199254740992",
                           "9007199254740993",
                           "9007199254740993.0000001",
                           "9007199254740995",
                           "18446744073709551615",
                           "18446744073709551616",
                           "99999999999999999999",
                           "1.00000005960464477539",
                           "1.000000059604644775390625",
                           "1.0000000596046447753906250000001",
                           "1.0000000596046447",
                           "0.1",
                           "0.2",
                           "0.30000000000000004",
                           "1e22",
                           "1e23",
                           "8.5e22",
                           "123456789e-22",
                           "123456789e-23",
                           "9007199254740993e-22",
                           "9007199254740993e22",
                           "3.4028234663852886e38",
                           "3.40282346e38",
                           "1.17549435e-38",
                           "1.4e-45",
                           "7.006492321624085e-46",
                           "7.006492321624086e-46",
                           "5e-324",
                           "2.2250738585072011e-308",
                           "0e5",
                           "0e-400",
                           "-0",
                           "-0e0",
                           "-0.0000000",
                           "1e0001",
                           "1E+05",
                           "0.00012345678901234567",
                           "-1.2345678901234567e-05",
                           "0.000000000000000000000000000001",
                           "100000000000000000000000000000",
                           "0.12345678901234567890123456789012345678901234567890"}) {
    // Left to the parser is right too, but these are what it is made for.
    EXPECT_TRUE(reads_as_standard(text) || std::string_view(text).find("324") == 2) << text;
  }
}

TEST(FloatTextTest, RoundsRandomNumbersAsTheStandardDoes) {
  Rng rng(7);
  int read_here = 0;
  for (int i = 0; i < kTexts; ++i) {
    char text[64];
    const uint64_t mantissa = rng.next() >> rng.below(64);
    const int exponent = static_cast<int>(rng.below(60)) - 40;
    std::snprintf(text, sizeof(text), "%s%llue%d", i % 2 == 0 ? "" : "-",
                  static_cast<unsigned long long>(mantissa), exponent);
    read_here += reads_as_standard(text) ? 1 : 0;
    // A random float of moderate size, printed with 1 to 17 digits, and the middle between it and
    // its neighbour.
    const float value = std::bit_cast<float>(
        static_cast<uint32_t>((rng.next() & 0x807FFFFFU) | ((96 + rng.below(64)) << 23)));
    std::snprintf(text, sizeof(text), "%.*g", static_cast<int>(1 + rng.below(17)),
                  static_cast<double>(value));
    if (std::string_view(text).find("e") == std::string_view::npos) {
      ASSERT_TRUE(reads_as_standard(text)) << text;
    }
    const double next = std::nextafter(value, INFINITY);
    std::snprintf(text, sizeof(text), "%.30f", (static_cast<double>(value) + next) / 2);
    ASSERT_TRUE(reads_as_standard(text)) << text;
  }
  EXPECT_GT(read_here, kTexts / 10 * 9);
}

TEST(FloatTextTest, ChangedTextsAreReadAlikeOrNotAtAll) {
  Rng rng(11);
  constexpr std::string_view kAlphabet = "0123456789.-+eE ";
  for (int i = 0; i < 3 * kTexts; ++i) {
    std::string text;
    for (uint64_t k = 1 + rng.below(12); k > 0; --k) text += kAlphabet[rng.below(kAlphabet.size())];
    std::vector<float> out;
    if (!read("[" + text + "]", out)) continue;
    // Whatever is taken is one JSON number between blanks.
    const size_t from = text.find_first_not_of(' ');
    const std::string number = text.substr(from, text.find_last_not_of(' ') - from + 1);
    ASSERT_TRUE(is_json_number(number)) << text;
    ASSERT_TRUE(reads_as_standard(number));
  }
}

}  // namespace
}  // namespace aionbd
