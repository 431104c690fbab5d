// Rows kept as bytes: which are, and that nobody can tell but by the size.
#include "engine/row_format.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "aionbd/aionbd.h"
#include "base/rng.h"

namespace aionbd {
namespace {

std::string_view format_of(std::span<const float> values) {
  RowFormatChoice choice;
  // One at a time: the choice is of all.
  for (const float& value : values) choice.look_at({&value, 1});
  RowFormatChoice at_once;
  at_once.look_at(values);
  EXPECT_EQ(choice.choice().tag, at_once.choice().tag);
  return choice.choice().name;
}

TEST(RowFormatChoice, IsTheNarrowestThatHoldsEveryValueExactly) {
  struct Case {
    std::vector<float> values;
    std::string_view want;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const Case cases[] = {
      {{0, 255, 17}, "u8"},   {{0, 0, 0}, "u8"},           {{-128, 127, 0}, "i8"},
      {{-1, 1}, "i8"},        {{-1, 128}, "f32"},          {{-129, 0}, "f32"},
      {{0, 256}, "f32"},      {{0, 255, 0.5F}, "f32"},     {{1, 254.99998F}, "f32"},
      {{0.0F, -0.0F}, "f32"}, {{1, nan}, "f32"},           {{1, infinity}, "f32"},
      {{-infinity}, "f32"},   {{1, 1e-40F}, "f32"},        {{3e38F}, "f32"},
      {{1, 1e10F}, "f32"},    {{1, -2147483648.0F}, "f32"}};
  for (const Case& each : cases) {
    EXPECT_EQ(format_of(each.values), each.want) << testing::PrintToString(each.values);
  }
}

TEST(RowFormatChoice, EveryByteComesBack) {
  for (const RowFormat& format : kRowFormats) {
    if (format.value_bytes != 1) continue;
    std::vector<float> values(256);
    for (size_t i = 0; i < 256; ++i) values[i] = format.lowest + static_cast<float>(i);
    EXPECT_EQ(format_of(values), format.name);
    std::vector<uint8_t> bytes(256);
    narrow_values(format, values, bytes.data());
    std::vector<float> back(256);
    values_in(format, reinterpret_cast<const std::byte*>(bytes.data())).copy(256, back.data());
    EXPECT_EQ(back, values);
  }
}

class RowFormatTest : public testing::Test {
 protected:
  RowFormatTest() {
    dir_ = testing::TempDir() + "aionbd_row_format_test_" +
           testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    open();
  }
  ~RowFormatTest() override {
    database_.reset();
    std::filesystem::remove_all(dir_);
  }

  void open() {
    database_.reset();
    DatabaseOptions options;
    options.data_dir = dir_;
    auto opened = Database::open(options);
    EXPECT_TRUE(opened.has_value()) << opened.error().to_string();
    database_ = *std::move(opened);
  }
  /// Rows of integers from `lowest` on, with some zero rows and many equal ones.
  void fill(Collection& collection, size_t rows, float lowest, uint64_t first_id = 0) {
    Rng rng(first_id + 9);
    std::vector<Point> points;
    for (size_t i = 0; i < rows; ++i) {
      Point point{first_id + i, {}, {{"r", static_cast<int64_t>(rng.below(100))}}};
      const bool zero = lowest <= 0 && i % 97 == 0;
      const uint64_t values = i % 2 == 0 ? 256 : 3;
      for (size_t k = 0; k < kDimension; ++k) {
        point.values.push_back(zero ? 0 : lowest + static_cast<float>(rng.below(values)));
      }
      points.push_back(std::move(point));
    }
    ASSERT_TRUE(collection.upsert(points).has_value());
  }
  /// What exact searches of all kinds answer, scores as bits.
  std::vector<std::string> answers(const Collection& collection) {
    std::vector<std::string> out;
    Rng rng(77);
    Filter filter;
    filter.must.push_back(
        {"r", InRange{.gt = {}, .gte = int64_t{20}, .lt = {}, .lte = {}}, nullptr});
    for (const Metric metric : {Metric::kDot, Metric::kL2, Metric::kCosine}) {
      for (const Filter* where : {static_cast<const Filter*>(nullptr), &std::as_const(filter)}) {
        std::vector<std::vector<float>> queries(20, std::vector<float>(kDimension));
        for (auto& query : queries) {
          for (float& value : query) value = static_cast<float>(rng.uniform() * 300 - 100);
        }
        SearchRequest request;
        request.metric = metric;
        request.mode = SearchMode::kExact;
        request.limit = 12;
        request.filter = where;
        for (const auto& query : queries) {
          request.query = query;
          out.push_back(text_of(collection.search(request).value()));
        }
        SearchBatchRequest all;
        all.common = request;
        all.queries.assign(queries.begin(), queries.end());
        const auto batch = collection.search_batch(all).value();
        for (const SearchResult& each : batch) out.push_back(text_of(each));
      }
    }
    return out;
  }
  static std::string text_of(const SearchResult& result) {
    std::string out;
    for (const Hit& hit : result.hits) {
      out += hit.id.to_string() + ":" + std::to_string(std::bit_cast<uint32_t>(hit.score)) + " ";
    }
    return out;
  }
  std::string formats(const Collection& collection) {
    std::string out;
    for (const SegmentStats& segment : collection.stats().value().segments) {
      if (segment.sealed) out += segment.row_format + " ";
    }
    return out;
  }

  static constexpr uint32_t kDimension = 37;
  std::string dir_;
  std::unique_ptr<Database> database_;
};

TEST_F(RowFormatTest, AnswersHaveTheSameBitsAsThoseOfFloats) {
  for (const float lowest : {0.0F, -128.0F}) {
    SCOPED_TRACE(lowest);
    const std::string name = lowest == 0 ? "pixels" : "signed";
    auto collection =
        database_->create_collection(name, {.dimension = kDimension, .metric = {}}).value();
    fill(*collection, 3000, lowest);
    // In the open segment they are floats.
    const std::vector<std::string> before = answers(*collection);
    const std::vector<PointId> ids = {uint64_t{0}, uint64_t{1}, uint64_t{2999}};
    const GetResult points = collection->get(ids, {}).value();
    ASSERT_TRUE(database_->checkpoint().ok());
    EXPECT_EQ(formats(*collection), lowest == 0 ? "u8 " : "i8 ");
    EXPECT_EQ(answers(*collection), before);
    open();
    collection = database_->collection(name).value();
    EXPECT_EQ(answers(*collection), before);
    const GetResult after = collection->get(ids, {}).value();
    ASSERT_EQ(after.points.size(), points.points.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(after.points[i].values, points.points[i].values);
    }
    // With an index, exact searches read bounds of codes first; then rows are bytes, too.
    ASSERT_TRUE(collection->optimize().ok());
    EXPECT_EQ(answers(*collection), before);
  }
}

TEST_F(RowFormatTest, AMergeWidensAndNarrows) {
  auto collection =
      database_->create_collection("c", {.dimension = kDimension, .metric = {}}).value();
  fill(*collection, 500, 0);
  ASSERT_TRUE(database_->checkpoint().ok());
  std::vector<Point> odd = {{uint64_t{1000}, std::vector<float>(kDimension, 0.5F), {}}};
  ASSERT_TRUE(collection->upsert(odd).has_value());
  ASSERT_TRUE(database_->checkpoint().ok());
  EXPECT_EQ(formats(*collection), "u8 f32 ");
  std::vector<std::string> before = answers(*collection);
  ASSERT_TRUE(collection->optimize().ok());
  EXPECT_EQ(formats(*collection), "f32 ");
  EXPECT_EQ(answers(*collection), before);
  // Without the one that was no integer.
  ASSERT_TRUE(collection->remove(std::vector<PointId>{uint64_t{1000}}).has_value());
  before = answers(*collection);
  ASSERT_TRUE(collection->optimize().ok());
  EXPECT_EQ(formats(*collection), "u8 ");
  EXPECT_EQ(answers(*collection), before);
}

}  // namespace
}  // namespace aionbd
