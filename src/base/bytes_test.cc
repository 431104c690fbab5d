#include "base/bytes.h"

#include <gtest/gtest.h>

#include <string>

namespace aionbd {
namespace {

enum class Colour : uint8_t { kRed = 7 };

TEST(Bytes, LittleEndianOnDisk) {
  std::string out;
  Encoder encoder(&out);
  encoder.put(uint32_t{0x01020304});
  encoder.put(Colour::kRed);
  encoder.put(1.0F);
  encoder.put_string("ab");
  EXPECT_EQ(out, std::string("\x04\x03\x02\x01\x07\x00\x00\x80\x3F\x02\x00\x00\x00"
                             "ab",
                             15));
  EXPECT_EQ(encoder.size(), 15U);
}

TEST(Bytes, WhatIsWrittenIsRead) {
  std::string out;
  Encoder encoder(&out);
  encoder.put(int64_t{-2});
  encoder.put_string("");
  encoder.put(uint8_t{9});
  encoder.pad_to(8);
  encoder.put_raw("xyz", 3);
  Decoder decoder(as_bytes_of(out));
  EXPECT_EQ(decoder.get<int64_t>(), -2);
  EXPECT_EQ(decoder.get_string(), "");
  EXPECT_EQ(decoder.get<uint8_t>(), 9);
  decoder.skip_padding(8);
  EXPECT_EQ(decoder.position(), 16U);
  EXPECT_FALSE(decoder.finished());
  EXPECT_EQ(as_text(decoder.get_raw(3)), "xyz");
  EXPECT_TRUE(decoder.finished());
}

TEST(Bytes, PaddingAtAMultipleIsNone) {
  std::string out(16, 'x');
  Encoder(&out).pad_to(8);
  EXPECT_EQ(out.size(), 16U);
}

TEST(Bytes, ShortReadFailsForEver) {
  Decoder decoder(as_bytes_of("\x01\x02\x03"));
  EXPECT_EQ(decoder.get<uint32_t>(), 0U);
  EXPECT_FALSE(decoder.ok());
  EXPECT_EQ(decoder.remaining(), 0U);
  EXPECT_EQ(decoder.get<uint8_t>(), 0);  // though three bytes are there
  EXPECT_TRUE(decoder.get_raw(1).empty());
  EXPECT_FALSE(decoder.finished());
}

TEST(Bytes, LengthBeyondTheEndFails) {
  for (const uint32_t claimed : {4U, 0xFFFFFFFFU}) {
    std::string out;
    Encoder encoder(&out);
    encoder.put(claimed);
    encoder.put_raw("abc", 3);
    Decoder decoder(as_bytes_of(out));
    EXPECT_EQ(decoder.get_string(), "");
    EXPECT_FALSE(decoder.ok());
  }
  Decoder decoder(as_bytes_of("abc"));
  EXPECT_TRUE(decoder.get_raw(SIZE_MAX).empty());
  EXPECT_FALSE(decoder.ok());
}

TEST(Bytes, PaddingMustBeZeroAndThere) {
  Decoder dirty(as_bytes_of(std::string_view("\x01\x00\x05\x00", 4)));
  dirty.get<uint8_t>();
  dirty.skip_padding(4);
  EXPECT_FALSE(dirty.ok());

  Decoder cut(as_bytes_of(std::string_view("\x01\x00", 2)));
  cut.get<uint8_t>();
  cut.skip_padding(4);
  EXPECT_FALSE(cut.ok());
}

}  // namespace
}  // namespace aionbd
