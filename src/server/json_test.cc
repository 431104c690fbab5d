#include "server/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace aionbd::json_test {
namespace {

/// A body with the padding the reader needs; the padding is hostile on purpose.
std::string padded(std::string_view text) {
  return std::string(text) + std::string(64, '7');
}

/// Reads a body and forgets every field: the strictest way not to look at it.
Status read_ignoring(std::string_view text) {
  const std::string body = padded(text);
  JsonReader reader;
  return reader.read(std::string_view(body).substr(0, text.size()),
                     [](std::string_view, JsonValue&) { return Status(); });
}

/// Reads "v" of a body as a payload value.
Status read_any(std::string_view value_text, Value& out) {
  const std::string text = "{\"v\":" + std::string(value_text) + "}";
  const std::string body = padded(text);
  JsonReader reader;
  return reader.read(std::string_view(body).substr(0, text.size()),
                     [&](std::string_view, JsonValue& v) { return v.read_value(out); });
}

Result<std::vector<float>> read_floats(std::string_view value_text, bool strict = true) {
  const std::string text = "{\"v\":" + std::string(value_text) + "}";
  const std::string body = padded(text);
  JsonReader reader;
  std::vector<float> out;
  RETURN_IF_ERROR(
      reader.read(std::string_view(body).substr(0, text.size()),
                  [&](std::string_view, JsonValue& v) { return v.read_floats(4, strict, out); }));
  return out;
}

std::string nested(size_t levels) {
  std::string out = "{\"a\":";
  for (size_t i = 1; i < levels; ++i) out += '[';
  for (size_t i = 1; i < levels; ++i) out += ']';
  return out + '}';
}

// Texts RFC 8259 calls valid, each as the value of an ignored field.
TEST(JsonReader, AcceptsEveryValidValue) {
  for (const std::string value : {"null",
                                  "true",
                                  "false",
                                  "0",
                                  "-0",
                                  "1",
                                  "-1",
                                  "123456789",
                                  "1.5",
                                  "-0.5",
                                  "1e5",
                                  "1E+5",
                                  "1e-5",
                                  "0e0",
                                  "0.0",
                                  "1.7976931348623157e308",
                                  "5e-324",
                                  "1e-999",
                                  "1e999",
                                  "18446744073709551615",
                                  "18446744073709551616",
                                  "-9223372036854775808",
                                  "-9223372036854775809",
                                  "123456789012345678901234567890",
                                  "\"\"",
                                  "\"a\"",
                                  "\"\\u0000\"",
                                  "\"\\ud83d\\ude00\"",
                                  "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
                                  "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
                                  "\"\x7f\"",
                                  "\"\\uFFFF\"",
                                  "[]",
                                  "[1]",
                                  "[ ]",
                                  "[1,2]",
                                  "[[],{}]",
                                  "{}",
                                  "{\"a\":1}",
                                  "{\"a\":{\"a\":1}}",
                                  "{\"\":0}",
                                  "[null,true,\"x\"]",
                                  " 1 ",
                                  "\t[\r\n1 , 2\n]\t"}) {
    EXPECT_TRUE(read_ignoring("{\"x\":" + value + "}").ok()) << value;
    EXPECT_TRUE(read_ignoring(" {\"x\":" + value + ",\"y\":1} \n").ok()) << value;
  }
  EXPECT_TRUE(read_ignoring("{}").ok());
  EXPECT_TRUE(read_ignoring(nested(kNestingMax)).ok());
}

// Texts RFC 8259 calls invalid, wherever they hide in a field nobody asks for.
TEST(JsonReader, RefusesEveryInvalidValue) {
  for (const std::string value : {"",
                                  "nul",
                                  "nulll",
                                  "tru",
                                  "True",
                                  "truex",
                                  "NaN",
                                  "Infinity",
                                  "-Infinity",
                                  "undefined",
                                  "01",
                                  "-01",
                                  "00",
                                  "1.",
                                  ".5",
                                  "-",
                                  "+1",
                                  "-.5",
                                  "1e",
                                  "1e+",
                                  "1.e5",
                                  "0x10",
                                  "1_0",
                                  "1 2",
                                  "1a",
                                  "--1",
                                  "- 1",
                                  "1..2",
                                  "1e5.5",
                                  "2.e3",
                                  "\"a",
                                  "a\"",
                                  "'a'",
                                  "\"\\x41\"",
                                  "\"\\u12\"",
                                  "\"\\u12G4\"",
                                  "\"\\ud800\"",
                                  "\"\\udc00\"",
                                  "\"\\ud800x\"",
                                  "\"\\ud800\\ud800\"",
                                  "\"\n\"",
                                  "\"\t\"",
                                  "\"\x01\"",
                                  "\"\\\"",
                                  "[",
                                  "]",
                                  "[1",
                                  "1]",
                                  "[1,]",
                                  "[,1]",
                                  "[1,,2]",
                                  "[1 2]",
                                  "[1:2]",
                                  "{",
                                  "}",
                                  "{\"a\"}",
                                  "{\"a\":}",
                                  "{\"a\":1,}",
                                  "{,}",
                                  "{\"a\" 1}",
                                  "{a:1}",
                                  "{1:1}",
                                  "{\"a\":1 \"b\":2}",
                                  "{\"a\":1,,\"b\":2}",
                                  "[}",
                                  "{]",
                                  "[1}",
                                  "{\"a\":1]",
                                  "\"\xff\"",
                                  "\"\xc0\xaf\"",
                                  "\"\xed\xa0\x80\"",
                                  "\"\xf4\x90\x80\x80\"",
                                  "\"\xc3\"",
                                  "// c\n1",
                                  "/* c */ 1",
                                  "1 // c",
                                  "{\"a\":1,\"a\":2}",
                                  "1e999x",
                                  "-1e999.0"}) {
    EXPECT_FALSE(read_ignoring("{\"x\":" + value + "}").ok()) << value;
    EXPECT_FALSE(read_ignoring("{\"x\":[1,{\"y\":" + value + "}],\"z\":1}").ok()) << value;
  }
}

TEST(JsonReader, RefusesAnythingButOneObject) {
  for (const std::string text :
       {"", " ", "null", "1", "\"a\"", "[]", "[{}]", "{} {}", "{}x", "{},", "{}}", "}{",
        "\xef\xbb\xbf{}", "{\"a\":1}1", "{\"a\":1}\"b\"", "{", "{\"a\"", "{\"a\":1", "nul"}) {
    EXPECT_FALSE(read_ignoring(text).ok()) << text;
  }
  EXPECT_FALSE(read_ignoring(std::string("{}\0", 3)).ok());
  EXPECT_FALSE(read_ignoring("{\"a\":1,\"a\":1}").ok()) << "duplicate key";
  EXPECT_FALSE(read_ignoring("{\"a\":1,\"\\u0061\":1}").ok()) << "duplicate key, escaped";
  EXPECT_FALSE(read_ignoring(nested(kNestingMax + 1)).ok());
  EXPECT_FALSE(read_ignoring("{\"a\":" + std::string(1000000, '[')).ok());
  EXPECT_FALSE(
      read_ignoring("{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}").ok());
}

TEST(JsonReader, KeepsTheTypeAndBitsOfNumbers) {
  struct Case {
    std::string_view text;
    size_t kind;  // index in Value::Data: 2 int64, 3 uint64, 4 double
    std::string_view printed;
  };
  for (const Case& c : {Case{"9223372036854775807", 2, "9223372036854775807"},
                        Case{"9223372036854775808", 3, "9223372036854775808"},
                        Case{"18446744073709551615", 3, "18446744073709551615"},
                        Case{"18446744073709551616", 4, "1.8446744073709552e+19"},
                        Case{"-9223372036854775808", 2, "-9223372036854775808"},
                        Case{"-9223372036854775809", 4, "-9.223372036854776e+18"},
                        Case{"1.0", 4, "1.0"}, Case{"1e2", 4, "100.0"}, Case{"0", 2, "0"},
                        Case{"-0", 4, "-0.0"}, Case{"-0.0", 4, "-0.0"}}) {
    Value got;
    ASSERT_TRUE(read_any(c.text, got).ok()) << c.text;
    EXPECT_EQ(got.data().index(), c.kind) << c.text;
    std::string printed;
    JsonWriter(printed).value(got);
    EXPECT_EQ(printed, c.printed);
  }
  Value ignored;
  EXPECT_FALSE(read_any("1e999", ignored).ok());
}

TEST(JsonReader, RoundsToF32AndKnowsItsRange) {
  const auto floats = read_floats("[0.1,-0.0,1e-45,3.4028235e38]");
  ASSERT_TRUE(floats.has_value());
  EXPECT_EQ((*floats)[0], 0.1F);
  EXPECT_TRUE(std::signbit((*floats)[1]));
  EXPECT_EQ((*floats)[2], std::numeric_limits<float>::denorm_min());
  EXPECT_EQ((*floats)[3], std::numeric_limits<float>::max());
  for (const char* beyond : {"[1e39]", "[-1e39]", "[1e999]", "[3.5e38]"}) {
    EXPECT_FALSE(read_floats(beyond).has_value()) << beyond;
    const auto infinite = read_floats(beyond, false);
    ASSERT_TRUE(infinite.has_value()) << beyond;
    EXPECT_TRUE(std::isinf((*infinite)[0])) << beyond;
  }
  EXPECT_EQ((*read_floats("[123456789012345678901234567890]"))[0],
            123456789012345678901234567890.F);
  EXPECT_EQ((*read_floats("[1e-400]"))[0], 0.F);
  for (const char* bad : {"[\"1\"]", "[null]", "[true]", "[[1]]", "[1,]", "[01]", "[1x]", "[NaN]",
                          "[1 2]", "[1.]", "1", "{}", "[1,2,3,4,5]", "[1e]", "[-]", "[1"}) {
    EXPECT_FALSE(read_floats(bad).has_value()) << bad;
    EXPECT_FALSE(read_floats(bad, false).has_value()) << bad;
  }
}

/// Reads every array of numbers in a body, in objects and arrays at any depth, and skips the rest.
Status read_all_floats(JsonValue& value, std::vector<float>& out) {
  if (value.kind() == JsonKind::kObject) {
    return value.read_object(
        [&](std::string_view, JsonValue& field) { return read_all_floats(field, out); });
  }
  if (value.kind() != JsonKind::kArray) return value.skip();
  if (value.name() == "list") {
    return value.read_array([&](JsonValue& item) { return item.read_floats(100, true, out); });
  }
  return value.read_floats(100, true, out);
}

Result<std::vector<float>> all_floats(std::string_view text) {
  const std::string body = padded(text);
  JsonReader reader;
  std::vector<float> out;
  RETURN_IF_ERROR(
      reader.read(std::string_view(body).substr(0, text.size()),
                  [&](std::string_view, JsonValue& v) { return read_all_floats(v, out); }));
  return out;
}

// Arrays of numbers are read beside the library, which must then go on right behind them.
TEST(JsonReader, GoesOnBehindArraysOfNumbers) {
  const std::vector<float> want = {1, 2, 3, 4};
  for (const char* text :
       {"{\"a\":[1,2],\"b\":[3,4]}", "{\"a\":[1,2,3,4]}",
        "{\"a\":[1,2],\"x\":{\"y\":\"]}\",\"b\":[3]},\"c\":[4]}", "{\"list\":[[1,2],[3,4]]}",
        "{\"list\":[[1],[2,3]],\"b\":[4]}", "{\"list\":[[1],[],[2]],\"e\":[],\"b\":[3,4]}",
        " { \"a\" : [ 1 , 2\n] , \"b\" : { \"c\" : [3] } , \"d\" : [ 4 ] } ",
        "{\"a\":[1,2.0],\"n\":null,\"b\":[3e0,0.4e1],\"t\":true}"}) {
    const auto got = all_floats(text);
    ASSERT_TRUE(got.has_value()) << text << ": " << got.error().message();
    EXPECT_EQ(*got, want) << text;
  }
  for (const char* text :
       {"{\"a\":[1,2]", "{\"a\":[1,2]]", "{\"a\":[1,2],}", "{\"a\":[1,2]}}", "{\"a\":[1,2}]",
        "{\"a\":[1,2\"b\":[3]}", "{\"a\":[1,2]\"b\":[3]}", "{\"a\":[1,2] 3}", "{\"a\":[1,2]:3}",
        "{\"a\":[1,2],[3]}", "{\"a\":[1,2],\"a\":[3]}", "{\"list\":[[1,2][3]]}",
        "{\"list\":[[1,2],]}", "{\"list\":[[1,2]}", "{\"list\":[[1,2]}]", "{\"a\":[1,2]} {}"}) {
    EXPECT_FALSE(all_floats(text).has_value()) << text;
  }
}

TEST(JsonReader, WholeNumbersAreExact) {
  const auto read = [](std::string_view value_text) -> Result<uint64_t> {
    const std::string text = "{\"limit\":" + std::string(value_text) + "}";
    const std::string body = padded(text);
    JsonReader reader;
    uint64_t out = 0;
    RETURN_IF_ERROR(reader.read(std::string_view(body).substr(0, text.size()),
                                [&](std::string_view, JsonValue& v) -> Status {
                                  const Result<uint64_t> number = v.read_u64();
                                  if (number.has_value()) out = *number;
                                  return number.status();
                                }));
    return out;
  };
  EXPECT_EQ(*read("0"), 0U);
  EXPECT_EQ(*read("9007199254740993"), 9007199254740993U);
  EXPECT_EQ(*read("18446744073709551615"), UINT64_MAX);
  for (const char* bad : {"18446744073709551616", "-1", "-0", "1.0", "1e2", "\"1\"", "true", "null",
                          "01", "1.", "[1]", "99999999999999999999999"}) {
    EXPECT_FALSE(read(bad).has_value()) << bad;
  }
}

TEST(JsonReader, CanBeUsedAgainAfterAnError) {
  JsonReader reader;
  const auto ignore = [](std::string_view, JsonValue&) { return Status(); };
  for (int i = 0; i < 3; ++i) {
    const std::string bad = padded("{\"a\":[1,{\"b\":tru}]}");
    EXPECT_FALSE(reader.read(std::string_view(bad).substr(0, bad.size() - 64), ignore).ok());
    const std::string good = padded("{\"a\":[1,{\"b\":true}]}");
    EXPECT_TRUE(reader.read(std::string_view(good).substr(0, good.size() - 64), ignore).ok());
  }
}

std::string text_of(double value) {
  std::string out;
  JsonWriter(out).number(value);
  return out;
}
std::string text_of(float value) {
  std::string out;
  JsonWriter(out).number(value);
  return out;
}

TEST(JsonWriter, WritesTheShortestTextThatReadsBack) {
  EXPECT_EQ(text_of(0.1F), "0.1");
  EXPECT_EQ(text_of(1.0F), "1.0");
  EXPECT_EQ(text_of(-0.0F), "-0.0");
  EXPECT_EQ(text_of(16777216.0F), "16777216.0");
  EXPECT_EQ(text_of(std::numeric_limits<float>::denorm_min()), "1e-45");
  EXPECT_EQ(text_of(0.1), "0.1");
  EXPECT_EQ(text_of(2.0), "2.0");
  EXPECT_EQ(text_of(1e300), "1e+300");
  EXPECT_EQ(text_of(std::nan("")), "null");
  EXPECT_EQ(text_of(std::numeric_limits<float>::infinity()), "null");
  for (uint32_t bits = 1; bits < 0x7f800000U; bits += 999983) {
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    const auto back = read_floats("[" + text_of(value) + "]");
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ((*back)[0], value) << text_of(value);
  }
}

TEST(JsonWriter, PayloadsSurviveARoundTrip) {
  const std::string text =
      "{\"a\":1,\"b\":-5,\"c\":18446744073709551615,\"d\":1.5,\"e\":2.0,\"f\":\"x\\\"\\\\\\n\\u0000"
      "\xc3\xa9\",\"g\":[true,false,null,[],{}],\"h\":{\"i\":{\"j\":1e+300}}}";
  Value value;
  ASSERT_TRUE(read_any(text, value).ok());
  std::string out;
  JsonWriter(out).value(value);
  EXPECT_EQ(out, text);
}

}  // namespace
}  // namespace aionbd::json_test
