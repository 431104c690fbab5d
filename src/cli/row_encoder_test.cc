#include "cli/row_encoder.h"

#include <gtest/gtest.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/rng.h"

namespace aionbd {
namespace {

std::string f32_text(float value) {
  std::string out;
  append_f32(value, &out);
  return out;
}

TEST(RowEncoderTest, F32TextReadsBackToTheSameBits) {
  Rng rng(7);
  for (int i = 0; i < 200000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(rng.next()));
    if (!std::isfinite(value)) continue;
    const std::string text = f32_text(value);
    float back = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), back);
    ASSERT_EQ(parsed.ptr, text.data() + text.size()) << text;
    ASSERT_EQ(std::bit_cast<uint32_t>(back), std::bit_cast<uint32_t>(value)) << text;
  }
}

TEST(RowEncoderTest, F32TextIsShortAndIsJson) {
  EXPECT_EQ(f32_text(0), "0");
  EXPECT_EQ(f32_text(-0.0F), "-0.0");
  EXPECT_EQ(f32_text(255), "255");
  EXPECT_EQ(f32_text(-7), "-7");
  EXPECT_EQ(f32_text(0.1F), "0.1");
  EXPECT_EQ(f32_text(16777215), "16777215");
  EXPECT_EQ(f32_text(1e20F), "1e+20");
  EXPECT_EQ(f32_text(std::numeric_limits<float>::denorm_min()), "1e-45");
}

RowBatch lines(const std::vector<std::string>& rows) {
  RowBatch batch;
  for (size_t i = 0; i < rows.size(); ++i) {
    batch.text_rows.push_back({i, batch.text.size(), rows[i].size(), false});
    batch.text += rows[i];
  }
  batch.text.append(kTextPaddingBytes, ' ');
  batch.rows_taken = rows.size();
  return batch;
}

TEST(RowEncoderTest, NumbersGetIdsAndLabels) {
  RowBatch batch;
  batch.first_row = 10;
  batch.dimension = 2;
  batch.values = {1, 2.5F, -0.0F, 4};
  batch.rows_taken = 2;
  std::string out;
  RowEncoder encoder({"id", 1000, IdType::kU64});
  ASSERT_TRUE(encoder.append_point(batch, 1, &out).ok());
  EXPECT_EQ(out, R"({"id":1011,"values":[-0.0,4]})");
  batch.labels = {3, 9};
  out.clear();
  ASSERT_TRUE(encoder.append_point(batch, 0, &out).ok());
  EXPECT_EQ(out, R"({"id":1010,"values":[1,2.5],"payload":{"label":3}})");
  RowEncoder texts({"id", 0, IdType::kString});
  out.clear();
  ASSERT_TRUE(texts.append_point(batch, 0, &out).ok());
  EXPECT_EQ(out, R"({"id":"10","values":[1,2.5],"payload":{"label":3}})");
}

TEST(RowEncoderTest, NumbersThatNoServerTakesAreRefused) {
  RowBatch batch;
  batch.first_row = 1;
  batch.dimension = 1;
  batch.values = {std::numeric_limits<float>::infinity()};
  RowEncoder encoder({"id", 0, IdType::kU64});
  std::string out = "x";
  EXPECT_FALSE(encoder.append_point(batch, 0, &out).ok());
  batch.values = {1};
  RowEncoder last({"id", UINT64_MAX, IdType::kU64});
  EXPECT_FALSE(last.append_point(batch, 0, &out).ok());
  EXPECT_EQ(out, "x");
}

TEST(RowEncoderTest, GoodLinesAreCopiedAsTheyAre) {
  RowEncoder encoder({});
  for (const std::string row :
       {R"({"id":18446744073709551615,"values":[0.1,1e-45,-0.0],"payload":{"é":[1,{"a":null}]}})",
        R"({ "values" : [ 1 ] , "id" : "text" })", R"({"id":1,"values":[]})"}) {
    std::string out = "[";
    const RowBatch batch = lines({"  " + row + " \r"});
    ASSERT_TRUE(encoder.append_point(batch, 0, &out).ok()) << row;
    EXPECT_EQ(out, "[" + row);
  }
}

TEST(RowEncoderTest, BadLinesAreRefusedAndLeaveNothing) {
  std::string deep = R"({"id":1,"values":[1],"payload":{"a":)";
  for (int i = 0; i < 200; ++i) deep += '[';
  for (int i = 0; i < 200; ++i) deep += ']';
  deep += "}}";
  RowEncoder encoder({});
  for (const std::string& row :
       {std::string("x"), std::string("[1]"), std::string("{"), std::string(R"({"id":1})"),
        std::string(R"({"values":[1]})"), std::string(R"({"id":1,"values":2})"),
        std::string(R"({"id":1,"values":[1],"more":1})"),
        std::string(R"({"id":1,"id":2,"values":[1]})"),
        std::string(R"({"id":1,"values":[1]},{"id":2,"values":[1]})"),
        std::string(R"({"id":1,"values":[1]}]})"), std::string(R"({"id":1,"values":[01]})"),
        std::string("{\"id\":1,\"values\":[1],\"payload\":{\"a\":\"\xFF\"}}"), deep}) {
    std::string out = "[";
    const Status status = encoder.append_point(lines({row}), 0, &out);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << row;
    EXPECT_EQ(out, "[");
  }
  RowBatch batch = lines({""});
  batch.text_rows[0].too_long = true;
  std::string out;
  EXPECT_EQ(encoder.append_point(batch, 0, &out).code(), Code::kInvalidArgument);
}

TEST(RowEncoderTest, AnotherIdFieldIsRenamed) {
  RowEncoder encoder({"_key", 0, IdType::kU64});
  std::string out;
  ASSERT_TRUE(encoder
                  .append_point(lines({R"({"_key":9007199254740993,"values":[0.1, 2],)"
                                       R"("payload":{"a":"\n"}})"}),
                                0, &out)
                  .ok());
  EXPECT_EQ(out, R"({"id":9007199254740993,"values":[0.1,2],"payload":{"a":"\n"}})");
  EXPECT_FALSE(encoder.append_point(lines({R"({"id":1,"values":[1]})"}), 0, &out).ok());
}

TEST(RowEncoderTest, ShapeOfTheFirstRow) {
  RowEncoder encoder({});
  const auto numbers = encoder.shape_of(lines({R"({"id":1,"values":[1,2,3]})"}), 0);
  ASSERT_TRUE(numbers.has_value());
  EXPECT_EQ(numbers->dimension, 3U);
  EXPECT_EQ(numbers->id_type, IdType::kU64);
  const auto text = encoder.shape_of(lines({R"({"id":"a","values":[1]})"}), 0);
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(text->id_type, IdType::kString);
  EXPECT_FALSE(encoder.shape_of(lines({R"({"id":"a","values":[]})"}), 0).has_value());
}

TEST(RowEncoderTest, StringsAreEscaped) {
  std::string out;
  append_json_string(std::string("a\"\\\n\0é", 7), &out);
  EXPECT_EQ(out, "\"a\\\"\\\\\\u000a\\u0000é\"");
}

}  // namespace
}  // namespace aionbd
