#include "base/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace aionbd {
namespace {

/// The bit pattern of UTF-8 with `size` bytes, even where that is not allowed.
std::string pattern(uint32_t value, int size) {
  if (size == 1) return {static_cast<char>(value)};
  std::string out;
  for (int i = 0; i < size - 1; ++i) {
    out.insert(0, 1, static_cast<char>(0x80 | (value & 0x3F)));
    value >>= 6;
  }
  const int lead = size == 2 ? 0xC0 : size == 3 ? 0xE0 : 0xF0;
  return static_cast<char>(lead | static_cast<int>(value)) + out;
}

int shortest(uint32_t value) {
  return value < 0x80 ? 1 : value < 0x800 ? 2 : value < 0x10000 ? 3 : 4;
}

TEST(Utf8, EveryCodePointInEveryLength) {
  for (uint32_t value = 0; value < 0x1FFFFF; value += value < 0x11000 ? 1 : 61) {
    const bool exists = value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
    for (int size = shortest(value); size <= 4; ++size) {
      ASSERT_EQ(is_utf8(pattern(value, size)), exists && size == shortest(value))
          << std::hex << value << " in " << size;
    }
  }
  EXPECT_TRUE(is_utf8(pattern(0x10FFFF, 4)));
  EXPECT_FALSE(is_utf8(pattern(0x110000, 4)));
}

TEST(Utf8, CutAndStrayBytesAreRefusedAtEveryPlace) {
  for (size_t before = 0; before < 20; ++before) {
    const std::string ascii(before, 'a');
    for (const uint32_t value : {0xE9U, 0x20ACU, 0x1F600U}) {
      const std::string whole = pattern(value, shortest(value));
      EXPECT_TRUE(is_utf8(ascii + whole + ascii));
      for (size_t cut = 1; cut < whole.size(); ++cut) {
        EXPECT_FALSE(is_utf8(ascii + whole.substr(0, cut)));
        EXPECT_FALSE(is_utf8(ascii + whole.substr(0, cut) + ascii + "a"));
        EXPECT_FALSE(is_utf8(ascii + whole.substr(cut)));
      }
    }
    for (const char* stray : {"\x80", "\xBF", "\xC0", "\xC1", "\xF5", "\xFF"}) {
      EXPECT_FALSE(is_utf8(ascii + stray + ascii));
    }
  }
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8(std::string_view("a\0b", 3)));
}

TEST(Utf8, BlankIsWhiteSpaceOnly) {
  for (const char* blank : {"", " ", "\t\r\n\v\f", "\xC2\x85", "\xC2\xA0", "\xE1\x9A\x80",
                            "\xE2\x80\x80", "\xE2\x80\x8A", "\xE2\x80\xA8", "\xE2\x80\xA9",
                            "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"}) {
    EXPECT_TRUE(is_blank(blank)) << quoted_text(blank);
  }
  // A zero-width space, a NUL and a malformed byte are not white space.
  for (const char* text : {" a ", "\xE2\x80\x8B", "\xFF", " \xC2"}) {
    EXPECT_FALSE(is_blank(text)) << quoted_text(text);
  }
  EXPECT_FALSE(is_blank(std::string_view("\0", 1)));
}

TEST(Utf8, QuotedIsAlwaysPrintable) {
  EXPECT_EQ(quoted_text("plain"), "\"plain\"");
  EXPECT_EQ(quoted_text("a\"b\\"), "\"a\\\"b\\\\\"");
  EXPECT_EQ(quoted_text("\n\x7F\xFF"), "\"\\x0a\\x7f\\xff\"");
  EXPECT_EQ(quoted_text("\xC2\x80"), "\"\\xc2\\x80\"");
  EXPECT_EQ(quoted_text("\xC3\xA9"), "\"\xC3\xA9\"");
  EXPECT_EQ(quoted_text(std::string(64, 'k')), "\"" + std::string(64, 'k') + "\"");
  EXPECT_EQ(quoted_text(std::string(65, 'k')), "\"" + std::string(64, 'k') + "\"...");
  for (size_t size = 0; size < 100; ++size) {
    std::string text;
    while (text.size() < size) text += "\xC3\xA9";
    EXPECT_TRUE(is_utf8(quoted_text(std::string_view(text).substr(0, size))));
  }
}

}  // namespace
}  // namespace aionbd
