#include "payload/payload.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "payload/filter_model.h"

namespace aionbd::payload_test {
namespace {

Draw draw_from(Rng* rng) {
  return [rng](uint64_t bound) { return rng->below(bound); };
}

std::string encoded(const Payload& payload) {
  return encode_payload(payload).value();
}

std::string refusal(const Payload& payload) {
  const auto result = encode_payload(payload);
  if (result) return "accepted";
  EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
  return result.error().message();
}

std::string damage(std::string_view bytes) {
  const Status status = check_payload(as_bytes_of(bytes));
  if (status.ok()) return "accepted";
  EXPECT_EQ(status.code(), Code::kCorruption);
  return status.message();
}

std::string with_size(std::string_view text) {
  std::string out;
  Encoder(&out).put_string(text);
  return out;
}

/// One entry: key and raw bytes of the value.
std::string entry(std::string_view key, std::string_view value) {
  std::string out;
  Encoder(&out).put(static_cast<uint16_t>(key.size()));
  return out + std::string(key) + std::string(value);
}

template <typename T>
std::string tagged(char tag, T body) {
  std::string out(1, tag);
  Encoder(&out).put(body);
  return out;
}

/// {"k": {"k": ... 1}} or {"k": [[... 1]]}: `levels` nested containers, the payload included.
Payload nested(size_t levels, bool arrays) {
  Value value = 1;
  for (size_t i = 1; i < levels; ++i) {
    if (arrays) {
      value = Value::Array{std::move(value)};
    } else {
      value = Value::Object{{"k", std::move(value)}};
    }
  }
  return {{"k", std::move(value)}};
}

TEST(Payload, WorkedExampleOfTheFormatDocument) {
  const std::string bytes(
      "\x01\x00n\x04\x07\0\0\0\0\0\0\0\x04\x00tags\x08\x07\0\0\0\x07\x01\0\0\0a\x03", 30);
  const Payload payload{{"n", 7}, {"tags", Value::Array{"a", true}}};
  EXPECT_EQ(encoded(payload), bytes);
  EXPECT_EQ(decode_payload(as_bytes_of(bytes)), payload);
}

TEST(Payload, EmptyIsNoBytes) {
  EXPECT_EQ(encoded({}), "");
  EXPECT_TRUE(check_payload({}).ok());
  EXPECT_EQ(decode_payload({}), Payload{});
}

TEST(Payload, NumbersKeepTheirKind) {
  const Payload payload{{"double", 1.0},
                        {"int", 1},
                        {"min", std::numeric_limits<int64_t>::min()},
                        {"uint", std::numeric_limits<uint64_t>::max()}};
  const Payload back = decode_payload(as_bytes_of(encoded(payload)));
  EXPECT_TRUE(std::holds_alternative<double>(back.at("double").data()));
  EXPECT_TRUE(std::holds_alternative<int64_t>(back.at("int").data()));
  EXPECT_TRUE(std::holds_alternative<uint64_t>(back.at("uint").data()));
  EXPECT_EQ(back, payload);
  const Payload zero = decode_payload(as_bytes_of(encoded({{"z", -0.0}})));
  EXPECT_TRUE(std::signbit(std::get<double>(zero.at("z").data())));
}

TEST(Payload, SmallUnsignedHasOneEncoding) {
  Value small = 0;
  small.data() = uint64_t{7};  // around the constructor, which would make it signed
  EXPECT_EQ(encoded({{"n", small}}), encoded({{"n", 7}}));
}

TEST(Payload, RandomOnesComeBackAndAreCanonical) {
  Rng rng(20240501);
  const Draw draw = draw_from(&rng);
  for (int i = 0; i < 20000; ++i) {
    const Payload payload = random_object(draw, 4);
    const std::string bytes = encoded(payload);
    ASSERT_TRUE(check_payload(as_bytes_of(bytes)).ok()) << i;
    const Payload back = decode_payload(as_bytes_of(bytes));
    ASSERT_EQ(back, payload) << i;
    ASSERT_EQ(encoded(back), bytes) << i;
  }
}

TEST(Payload, KeyOrderIsByUnsignedBytes) {
  const std::string bytes = encoded({{"\xC3\xA9", 1}, {"a", 2}, {"Z", 3}});
  EXPECT_LT(bytes.find('Z'), bytes.find('a'));
  EXPECT_LT(bytes.find('a'), bytes.find('\xC3'));
  EXPECT_TRUE(check_payload(as_bytes_of(bytes)).ok());
}

TEST(Payload, EncodeRefusesNamingTheKey) {
  EXPECT_EQ(refusal({{"", 1}}), "payload key is blank: \"\"");
  EXPECT_EQ(refusal({{"a", Value::Object{{" \t", 1}}}}), "payload key is blank: \"a. \\x09\"");
  EXPECT_EQ(refusal({{"\xE3\x80\x80", 1}}), "payload key is blank: \"\xE3\x80\x80\"");
  EXPECT_EQ(refusal({{std::string(256, 'k'), 1}}), "accepted");
  EXPECT_EQ(refusal({{std::string(257, 'k'), 1}}),
            "payload key is too long: at most 256 bytes, got 257, at \"" + std::string(64, 'k') +
                "\"...");
  EXPECT_EQ(refusal({{"a\xFF", 1}}), "payload key is not UTF-8: \"a\\xff\"");
  EXPECT_EQ(refusal({{"a", Value::Array{1, Value::Object{{"b", "\xED\xA0\x80"}}}}}),
            "payload string is not UTF-8: \"a[1].b\"");
  EXPECT_EQ(refusal({{"a", Value::Array{0.5, NAN}}}), "payload number is not finite: \"a[1]\"");
  // Containers before it are not on the path.
  const Payload after{{"a", Value::Object{{"x", 1}}}, {"b", Value::Array{1}}, {"c", NAN}};
  EXPECT_EQ(refusal(after), "payload number is not finite: \"c\"");
  EXPECT_EQ(refusal({{"a", -INFINITY}}), "payload number is not finite: \"a\"");
}

TEST(Payload, EncodeRefusesDeepAndLargeOnes) {
  for (const bool arrays : {false, true}) {
    EXPECT_EQ(refusal(nested(kNestingMax, arrays)), "accepted");
    EXPECT_TRUE(refusal(nested(kNestingMax + 1, arrays))
                    .starts_with("payload is nested too deeply: at most 64 levels, at \"k"));
  }
  // Key "k": 2 + 1 bytes, tag and size: 5.
  EXPECT_EQ(refusal({{"k", std::string(kPayloadBytesMax - 8, 'x')}}), "accepted");
  EXPECT_EQ(refusal({{"k", std::string(kPayloadBytesMax - 7, 'x')}}),
            "payload is too large: at most 1048576 bytes encoded, exceeded at \"k\"");
  EXPECT_EQ(refusal({{"k", Value::Array(kPayloadBytesMax)}}),
            "payload is too large: at most 1048576 bytes encoded, exceeded at \"k[1048568]\"");
}

TEST(Payload, CheckRefusesWhatIsNotCanonical) {
  EXPECT_EQ(damage(entry("b", "\x01") + entry("a", "\x01")),
            "payload is damaged: keys out of order, offset 4");
  EXPECT_EQ(damage(entry("a", "\x01") + entry("a", "\x01")),
            "payload is damaged: keys out of order, offset 4");
  EXPECT_EQ(damage(entry("a", tagged<uint64_t>(5, INT64_MAX))),
            "payload is damaged: unsigned number that fits a signed one, offset 3");
  EXPECT_EQ(damage(entry("a", tagged<uint64_t>(5, uint64_t{1} << 63))), "accepted");
  EXPECT_EQ(damage(entry("a", tagged<double>(6, NAN))),
            "payload is damaged: number is not finite, offset 3");
  EXPECT_EQ(damage(entry("", "\x01")), "payload is damaged: bad key size, offset 0");
  EXPECT_EQ(damage(entry(std::string(257, 'k'), "\x01")),
            "payload is damaged: bad key size, offset 0");
  EXPECT_EQ(damage(entry(" ", "\x01")), "payload is damaged: blank key, offset 0");
  EXPECT_EQ(damage(entry("\xC0\x80", "\x01")), "payload is damaged: key is not UTF-8, offset 0");
  EXPECT_EQ(damage(entry("a", "\x07" + with_size("\xFF"))),
            "payload is damaged: string is not UTF-8, offset 3");
}

TEST(Payload, CheckRefusesWhatIsNotWhole) {
  EXPECT_EQ(damage(entry("a", std::string_view("\0", 1))),
            "payload is damaged: unknown tag, offset 3");
  EXPECT_EQ(damage(entry("a", "\x0A")), "payload is damaged: unknown tag, offset 3");
  EXPECT_EQ(damage("\x01"), "payload is damaged: key cut short, offset 0");
  EXPECT_EQ(damage(entry("a", "")), "payload is damaged: key cut short, offset 0");
  EXPECT_EQ(damage(entry("a", std::string_view("\x04\x01", 2))),
            "payload is damaged: value cut short, offset 3");
  EXPECT_EQ(damage(entry("a", "\x08" + with_size("\x01").substr(0, 4))),
            "payload is damaged: value cut short, offset 3");
  // The string claims more bytes than its array has, though the payload has them.
  EXPECT_EQ(damage(entry("a", "\x08" + with_size("\x07" + with_size("xy").substr(0, 5)) + "y")),
            "payload is damaged: value cut short, offset 8");
  EXPECT_EQ(damage(std::string(kPayloadBytesMax + 1, '\x01')),
            "payload is damaged: 1048577 bytes, at most 1048576");
}

TEST(Payload, CheckBoundsNesting) {
  std::string value = "\x01";
  for (size_t levels = 2; levels <= kNestingMax; ++levels) value = "\x08" + with_size(value);
  EXPECT_EQ(damage(entry("a", value)), "accepted");
  value = "\x08" + with_size(value);
  EXPECT_TRUE(damage(entry("a", value)).starts_with("payload is damaged: nesting too deep"));
  // As deep as the size allows: must not eat the stack.
  std::string deep;
  for (uint32_t below = 200000; below > 0; --below) deep += tagged('\x08', (below - 1) * 5 + 1);
  EXPECT_TRUE(
      damage(entry("a", deep + "\x01")).starts_with("payload is damaged: nesting too deep"));
}

TEST(Payload, EverySingleByteChangeIsRefusedOrReadsSafely) {
  const std::string sample = encoded({{"arr", Value::Array{1, 2.5, "x", nullptr, Value::Array{}}},
                                      {"big", UINT64_MAX},
                                      {"flag", true},
                                      {"obj", Value::Object{{"in", "t\xC3\xA9xt"}, {"n", -1}}},
                                      {"s", "hello"}});
  size_t accepted = 0;
  for (size_t at = 0; at < sample.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string bytes = sample;
      bytes[at] = static_cast<char>(value);
      if (!check_payload(as_bytes_of(bytes)).ok()) continue;
      ++accepted;
      ASSERT_EQ(encoded(decode_payload(as_bytes_of(bytes))), bytes) << at << " = " << value;
    }
  }
  EXPECT_GE(accepted, sample.size());  // at least the unchanged ones
}

TEST(Payload, EveryPrefixIsRefusedUnlessItEndsBetweenEntries) {
  const std::string bytes = encoded({{"a", 1}, {"b", "text"}, {"c", Value::Array{1, 2}}});
  size_t accepted = 0;
  for (size_t size = 0; size <= bytes.size(); ++size) {
    // A copy of exactly that size, so that the address sanitizer sees a read beyond it.
    const std::vector<std::byte> prefix(
        as_bytes_of(bytes).begin(), as_bytes_of(bytes).begin() + static_cast<std::ptrdiff_t>(size));
    if (check_payload(prefix).ok()) ++accepted;
  }
  EXPECT_EQ(accepted, 4U);
}

}  // namespace
}  // namespace aionbd::payload_test
