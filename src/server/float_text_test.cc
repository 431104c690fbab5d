#include "server/float_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/rng.h"

namespace aionbd {
namespace {

constexpr size_t kPadding = 64;

bool read(std::string text, std::vector<float>& out, size_t values_max = 100) {
  const size_t size = text.size();
  text.append(kPadding, '7');  // a reader that does not stop at the end would take these
  return read_plain_floats(text.data(), text.data() + size, values_max, out);
}

TEST(FloatTextTest, ReadsWhatAParserReads) {
  std::vector<float> out;
  ASSERT_TRUE(read("[0, -0.0 ,1,255\n,0.1,-12.5e1,3E-4,16777217,9007199254740992]", out));
  const std::vector<float> want = {
      0.0F, -0.0F, 1.0F, 255.0F, 0.1F, -125.0F, 3e-4F, 16777216.0F, 9007199254740992.0F};
  ASSERT_EQ(out, want);
  EXPECT_TRUE(std::signbit(out[1]));
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
                               "[1e23]",
                               "[[1]]",
                               "[9007199254740993]",
                               "[1.2.3]",
                               "[--1]",
                               "[-]",
                               "[1e0001]",
                               "[12345678901234567890]",
                               "[0.12345678901234567890]",
                               "[NaN]",
                               "[1}"};
  for (const char* text : texts) {
    std::vector<float> out = {42.0F};
    EXPECT_FALSE(read(text, out)) << text;
    EXPECT_EQ(out, std::vector<float>{42.0F}) << text;
  }
  std::vector<float> out;
  EXPECT_FALSE(read("[1,2,3]", out, 2));
  EXPECT_TRUE(out.empty());
}

TEST(FloatTextTest, RoundsAsStrtodDoes) {
  Rng rng(7);
  int plain = 0;
  for (int i = 0; i < 200000; ++i) {
    char text[64];
    const uint64_t mantissa = rng.next() >> (11 + rng.below(50));
    const int exponent = static_cast<int>(rng.below(40)) - 20;
    std::snprintf(text, sizeof(text), "[%llue%d]", static_cast<unsigned long long>(mantissa),
                  exponent);
    std::vector<float> out;
    if (!read(text, out)) continue;
    ++plain;
    const auto want = static_cast<float>(std::strtod(text + 1, nullptr));
    ASSERT_EQ(std::memcmp(&out[0], &want, sizeof(float)), 0) << text;
  }
  EXPECT_GT(plain, 100000);
}

}  // namespace
}  // namespace aionbd
