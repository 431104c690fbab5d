#include "payload/field_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "base/rng.h"
#include "payload/field_index_layout.h"
#include "payload/filter.h"
#include "payload/filter_model.h"
#include "payload/payload.h"

namespace aionbd::field_index_test {
namespace {

/// A segment's payloads and its index, in memory aligned as in a mapped file.
class Segment {
 public:
  explicit Segment(const std::vector<Payload>& payloads, FieldIndexOptions options = {}) {
    FieldIndexBuilder builder(std::move(options));
    for (const Payload& payload : payloads) {
      auto encoded = encode_payload(payload);
      EXPECT_TRUE(encoded.has_value());
      builder.add(as_bytes_of(*encoded));
      payloads_.push_back(std::move(*encoded));
    }
    set_bytes(std::move(builder).finish());
  }

  /// Takes `bytes` for the index's.
  void set_bytes(const std::string& bytes) {
    bytes_ = bytes;
    aligned_.assign(bytes.size() / sizeof(uint64_t) + 1, 0);
    std::memcpy(aligned_.data(), bytes.data(), bytes.size());
  }
  Bytes index_bytes() const { return std::as_bytes(std::span(aligned_)).first(bytes_.size()); }
  const std::string& bytes() const { return bytes_; }
  Result<FieldIndex> open() const { return FieldIndex::open(index_bytes(), payloads_.size()); }
  uint64_t rows_count() const { return payloads_.size(); }

  std::vector<uint32_t> matching(const CompiledFilter& filter) const {
    std::vector<uint32_t> rows;
    for (uint32_t row = 0; row < payloads_.size(); ++row) {
      if (filter.matches(as_bytes_of(payloads_[row]))) rows.push_back(row);
    }
    return rows;
  }

 private:
  std::vector<std::string> payloads_;
  std::string bytes_;
  std::vector<uint64_t> aligned_;
};

std::vector<uint32_t> rows_of(const RowSet& set) {
  std::vector<uint32_t> rows;
  set.for_each([&](uint32_t row) { rows.push_back(row); });
  return rows;
}

Draw draw_from(Rng* rng) {
  return [rng](uint64_t bound) { return rng->below(bound); };
}

CompiledFilter compiled(const Filter& filter) {
  auto result = CompiledFilter::compile(filter);
  EXPECT_TRUE(result.has_value());
  return std::move(*result);
}

template <typename Test>
Filter only(std::string field, Test test) {
  Clause clause;
  clause.field = std::move(field);
  clause.test = std::move(test);
  Filter filter;
  filter.must.push_back(std::move(clause));
  return filter;
}

InRange range(std::initializer_list<std::pair<std::string_view, Value>> bounds) {
  InRange out;
  for (const auto& [name, value] : bounds) {
    (name == "gt" ? out.gt : name == "gte" ? out.gte : name == "lt" ? out.lt : out.lte) = value;
  }
  return out;
}

/// The answer is sound, exact when it says so, and within the estimate. Whether it was exact.
bool check_answer(const Segment& segment, const FieldIndex& index, const CompiledFilter& filter) {
  const auto wanted = segment.matching(filter);
  const IndexAnswer answer = filter.evaluate(index);
  const auto upper = rows_of(answer.upper);
  if (answer.exact) {
    EXPECT_EQ(upper, wanted);
  } else {
    EXPECT_TRUE(std::includes(upper.begin(), upper.end(), wanted.begin(), wanted.end()));
  }
  EXPECT_TRUE(upper.empty() || upper.back() < segment.rows_count());
  const CountBounds bounds = filter.estimate(index);
  EXPECT_LE(bounds.lower, wanted.size());
  EXPECT_GE(bounds.upper, wanted.size());
  EXPECT_LE(bounds.upper, segment.rows_count());
  return answer.exact;
}

std::vector<Payload> random_payloads(Rng* rng, size_t rows) {
  constexpr size_t kDepth = 3;
  std::vector<Payload> payloads;
  for (size_t row = 0; row < rows; ++row) {
    payloads.push_back(random_object(draw_from(rng), kDepth));
  }
  return payloads;
}

/// The fields of the filter, for knowing what has to be exact.
void add_fields(const Filter& filter, std::vector<std::string>* fields) {
  for (const auto* clauses : {&filter.must, &filter.should, &filter.must_not}) {
    for (const Clause& clause : *clauses) {
      if (clause.nested) {
        add_fields(*clause.nested, fields);
      } else {
        fields->push_back(clause.field);
      }
    }
  }
}

// ---- Against the program over payloads ----------------------------------------------------------

TEST(FieldIndex, AnswersAsTheProgramDoes) {
  Rng rng(1);
  constexpr size_t kFilterDepth = 3;
  for (int round = 0; round < 60; ++round) {
    const Segment segment(random_payloads(&rng, 1 + rng.below(round % 10 == 0 ? 3000 : 100)));
    const auto index = segment.open();
    ASSERT_TRUE(index.has_value());
    for (int i = 0; i < 200; ++i) {
      const CompiledFilter filter = compiled(random_filter(draw_from(&rng), kFilterDepth));
      EXPECT_TRUE(check_answer(segment, *index, filter)) << "every field is indexed";
      ASSERT_FALSE(HasFailure());
    }
  }
}

TEST(FieldIndex, FieldsWithoutValuesLeaveAnswersOpenButSound) {
  Rng rng(2);
  constexpr size_t kFilterDepth = 3;
  int exact_count = 0;
  int open_count = 0;
  for (int round = 0; round < 60; ++round) {
    const std::vector<std::string> all = {"a", "b", "c", "a.b", "b.c", "a.b.c", "\xC3\xA9"};
    FieldIndexOptions options;
    options.fields.emplace();
    for (const std::string& field : all) {
      if (rng.below(2) == 0) options.fields->push_back(field);
    }
    const std::vector<std::string> indexed = *options.fields;
    const Segment segment(random_payloads(&rng, 1 + rng.below(150)), options);
    const auto index = segment.open();
    ASSERT_TRUE(index.has_value());
    std::vector<std::string> known_only;
    for (size_t i = 0; i < index->fields_count(); ++i) {
      if (!index->field(i).indexed) known_only.emplace_back(index->field(i).path);
    }
    for (int i = 0; i < 200; ++i) {
      const Filter filter = random_filter(draw_from(&rng), kFilterDepth);
      const bool exact = check_answer(segment, *index, compiled(filter));
      std::vector<std::string> fields;
      add_fields(filter, &fields);
      const bool answerable = std::none_of(fields.begin(), fields.end(), [&](const auto& field) {
        return std::find(known_only.begin(), known_only.end(), field) != known_only.end();
      });
      EXPECT_TRUE(exact || !answerable);
      ++(exact ? exact_count : open_count);
      ASSERT_FALSE(HasFailure());
    }
  }
  EXPECT_GT(exact_count, 1000);
  EXPECT_GT(open_count, 1000);
}

TEST(FieldIndex, ManyRowsMakePostingsAndChunks) {
  Rng rng(3);
  std::vector<Payload> payloads;
  constexpr uint32_t kRows = 100000;
  for (uint32_t row = 0; row < kRows; ++row) {
    Payload payload;
    payload["label"] = "label_" + std::to_string(rng.below(10));
    payload["price"] = static_cast<double>(rng.below(1000000)) / 100;
    payload["year"] = static_cast<int64_t>(1990 + rng.below(30));
    payload["when"] = static_cast<int64_t>(row);
    if (rng.below(3) == 0) payload["flag"] = rng.below(2) == 0;
    Value::Array tags;
    for (int i = 0; i < 3; ++i) tags.push_back("tag_" + std::to_string(rng.below(200)));
    payload["tags"] = std::move(tags);
    payloads.push_back(std::move(payload));
  }
  const Segment segment(payloads);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  std::vector<Filter> filters;
  filters.push_back(only("label", EqualTo{"label_3"}));
  filters.push_back(only("label", AnyOf{{"label_3", "label_9", "none", 4}}));
  filters.push_back(only("label", StartsWith{"label_"}));
  filters.push_back(only("tags", StartsWith{"tag_1"}));
  filters.push_back(only("tags", ContainsAll{{"tag_1", "tag_2"}}));
  filters.push_back(only("tags", AnyOf{{"tag_1", "tag_2"}}));
  filters.push_back(only("price", range({{"gte", 10.0}, {"lt", 12}})));
  filters.push_back(only("price", range({{"gt", 5000}})));
  filters.push_back(only("price", EqualTo{0.01}));
  filters.push_back(only("price", range({{"gte", 10.0}, {"lt", 10.02}})));
  filters.push_back(only("year", range({{"gt", 1999.5}, {"lte", 2005}})));
  filters.push_back(only("year", EqualTo{2005.0}));
  filters.push_back(only("when", range({{"gte", 65530}, {"lt", 65540}})));
  filters.push_back(only("when", range({{"lt", 140000}})));
  filters.push_back(only("flag", EqualTo{true}));
  filters.push_back(only("flag", AnyOf{{true, false, nullptr}}));
  filters.push_back(only("flag", Exists{false}));
  for (const Filter& filter : filters) {
    EXPECT_TRUE(check_answer(segment, *index, compiled(filter)));
  }
  for (int i = 0; i < 40; ++i) {
    Filter filter;
    for (uint64_t left = 2 + rng.below(4); left > 0; --left) {
      Clause clause;
      clause.nested = std::make_unique<Filter>();
      const Filter& picked = filters[rng.below(filters.size())];
      clause.nested->must.emplace_back();
      clause.nested->must[0].field = picked.must[0].field;
      clause.nested->must[0].test = picked.must[0].test;
      (rng.below(3) == 0   ? filter.must_not
       : rng.below(3) == 0 ? filter.must
                           : filter.should)
          .push_back(std::move(clause));
    }
    if (!filter.should.empty()) {
      filter.minimum_should_match = static_cast<uint32_t>(rng.below(filter.should.size() + 1));
    }
    EXPECT_TRUE(check_answer(segment, *index, compiled(filter)));
  }
}

TEST(FieldIndex, MinimumShouldMatchCounts) {
  constexpr size_t kClauses = 13;
  Rng rng(4);
  std::vector<Payload> payloads(500);
  for (Payload& payload : payloads) {
    for (size_t i = 0; i < kClauses; ++i) {
      if (rng.below(2) == 0) payload["f" + std::to_string(i)] = 1;
    }
  }
  const Segment segment(payloads);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  for (uint32_t minimum = 0; minimum <= kClauses; ++minimum) {
    Filter filter;
    for (size_t i = 0; i < kClauses; ++i) {
      filter.should.emplace_back();
      filter.should.back().field = "f" + std::to_string(i);
      filter.should.back().test = EqualTo{1};
    }
    filter.minimum_should_match = minimum;
    EXPECT_TRUE(check_answer(segment, *index, compiled(filter)));
  }
}

// ---- Single rules -------------------------------------------------------------------------------

std::vector<uint32_t> rows_where(const FieldIndex& index, const Filter& filter) {
  const IndexAnswer answer = compiled(filter).evaluate(index);
  EXPECT_TRUE(answer.exact);
  return rows_of(answer.upper);
}

using Rows = std::vector<uint32_t>;

TEST(FieldIndex, KeysWithDotsFollowTheRule) {
  std::vector<Payload> payloads(4);
  payloads[0]["a"] = Value::Object{{"b", 1}};
  payloads[1]["a.b"] = 1;
  payloads[2]["a.b"] = 2;  // comes before the object's
  payloads[2]["a"] = Value::Object{{"b", 1}};
  payloads[3]["a.b"] = Value::Object{{"c", 1}};  // no way in: the first key would be "a"
  const Segment segment(payloads);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  EXPECT_EQ(rows_where(*index, only("a.b", EqualTo{1})), (Rows{0, 1}));
  EXPECT_EQ(rows_where(*index, only("a.b", EqualTo{2})), (Rows{2}));
  EXPECT_EQ(rows_where(*index, only("a.b", Exists{})), (Rows{0, 1, 2, 3}));
  EXPECT_EQ(rows_where(*index, only("a.b.c", Exists{})), Rows{});
}

TEST(FieldIndex, NumbersKeepTheirExactValue) {
  constexpr int64_t k2To53 = int64_t{1} << 53;
  std::vector<Payload> payloads(8);
  payloads[0]["n"] = k2To53;
  payloads[1]["n"] = k2To53 + 1;
  payloads[2]["n"] = 0x1p53;
  payloads[3]["n"] = -0.0;
  payloads[4]["n"] = 0;
  payloads[5]["n"] = UINT64_MAX;
  payloads[6]["n"] = 0x1p64;
  payloads[7]["n"] = Value::Array{1, 1.0, "1"};
  const Segment segment(payloads);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  EXPECT_EQ(rows_where(*index, only("n", EqualTo{0x1p53})), (Rows{0, 2}));
  EXPECT_EQ(rows_where(*index, only("n", EqualTo{k2To53 + 1})), (Rows{1}));
  EXPECT_EQ(rows_where(*index, only("n", EqualTo{0.0})), (Rows{3, 4}));
  EXPECT_EQ(rows_where(*index, only("n", range({{"gt", 0x1p53}}))), (Rows{1, 5, 6}));
  EXPECT_EQ(rows_where(*index, only("n", range({{"gt", UINT64_MAX}}))), (Rows{6}));
  EXPECT_EQ(rows_where(*index, only("n", range({{"gte", 1}, {"lt", 0x1p64}}))),
            (Rows{0, 1, 2, 5, 7}));
  EXPECT_EQ(rows_where(*index, only("n", range({{"lt", 0}}))), Rows{});
  EXPECT_EQ(rows_where(*index, only("n", EqualTo{1})), (Rows{7}));
}

TEST(FieldIndex, TheIndexIsOfTheRowsAddedAndNothingElse) {
  const Segment segment(std::vector<Payload>{});
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  EXPECT_EQ(rows_where(*index, Filter()), Rows{});
  EXPECT_EQ(rows_where(*index, only("a", Exists{false})), Rows{});
  EXPECT_FALSE(FieldIndex::open(segment.index_bytes(), 1).has_value());

  const Segment without_fields(std::vector<Payload>(3));
  const auto empty = without_fields.open();
  ASSERT_TRUE(empty.has_value());
  EXPECT_EQ(rows_where(*empty, Filter()), (Rows{0, 1, 2}));
  EXPECT_EQ(rows_where(*empty, only("a", Exists{false})), (Rows{0, 1, 2}));
}

TEST(FieldIndex, BuildsTheSameBytesFromTheSameRows) {
  Rng rng(5);
  const auto payloads = random_payloads(&rng, 200);
  EXPECT_EQ(Segment(payloads).bytes(), Segment(payloads).bytes());
}

TEST(FieldIndex, AFinishedBuilderIsEmpty) {
  FieldIndexBuilder builder;
  Payload payload;
  payload["a"] = 1;
  builder.add(as_bytes_of(*encode_payload(payload)));
  const std::string first = std::move(builder).finish();
  EXPECT_EQ(builder.rows_count(), 0U);
  EXPECT_NE(std::move(builder).finish(), first);
}

// ---- Limits -------------------------------------------------------------------------------------

TEST(FieldIndex, TheMostFrequentFieldsAreIndexed) {
  constexpr size_t kFields = kIndexedFieldsMax + 10;
  std::vector<Payload> payloads(2 * kFields);
  for (size_t row = 0; row < payloads.size(); ++row) {
    for (size_t i = 0; i < kFields; ++i) {
      if (row < 100 + i) payloads[row]["f" + std::to_string(1000 + i)] = static_cast<int64_t>(i);
    }
  }
  const Segment segment(payloads);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  ASSERT_EQ(index->fields_count(), kFields);
  for (size_t i = 0; i < kFields; ++i) {
    EXPECT_EQ(index->field(i).indexed, i >= 10) << i;
    EXPECT_EQ(index->field(i).rows_count, std::min(100 + i, payloads.size()));
  }
  EXPECT_FALSE(check_answer(segment, *index, compiled(only("f1000", EqualTo{0}))));
  EXPECT_TRUE(check_answer(segment, *index, compiled(only("f1070", EqualTo{70}))));
}

TEST(FieldIndex, TextIsNotIndexed) {
  std::vector<Payload> payloads(100);
  for (size_t row = 0; row < payloads.size(); ++row) {
    payloads[row]["text"] = std::string(1000, 'x') + std::to_string(row);
    payloads[row]["label"] = std::string(1000, static_cast<char>('a' + row % 3));
  }
  FieldIndexOptions options;
  options.string_bytes_max = 50000;
  const Segment segment(payloads, options);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  ASSERT_EQ(index->fields_count(), 2U);
  EXPECT_TRUE(index->field(0).indexed);
  EXPECT_FALSE(index->field(1).indexed);
  EXPECT_FALSE(check_answer(segment, *index, compiled(only("text", StartsWith{"x"}))));
}

TEST(FieldIndex, MemoryIsBoundedByGivingUpTheLargestField) {
  FieldIndexOptions options;
  options.memory_bytes_max = size_t{3} << 20;
  FieldIndexBuilder builder(options);
  constexpr int kRows = 100000;
  Payload payload;
  payload["label"] = "one of few";
  Rng rng(6);
  size_t highest = 0;
  for (int row = 0; row < kRows; ++row) {
    payload["number"] = static_cast<double>(rng.next());
    payload["id"] = std::to_string(rng.next());
    builder.add(as_bytes_of(*encode_payload(payload)));
    if (row % 100 == 0) highest = std::max(highest, builder.memory_bytes());
  }
  EXPECT_LT(highest, 3 * options.memory_bytes_max);
  const std::string bytes = std::move(builder).finish();
  std::vector<uint64_t> aligned(bytes.size() / 8 + 1);
  std::memcpy(aligned.data(), bytes.data(), bytes.size());
  const auto index = FieldIndex::open(std::as_bytes(std::span(aligned)).first(bytes.size()), kRows);
  ASSERT_TRUE(index.has_value());
  ASSERT_EQ(index->fields_count(), 3U);
  EXPECT_FALSE(index->field(0).indexed);  // id
  EXPECT_TRUE(index->field(1).indexed);   // label
  EXPECT_EQ(index->field(0).rows_count, uint64_t{kRows});
}

TEST(FieldIndex, KeysUsedAsDataMakeUnknownFieldsUnknown) {
  std::vector<Payload> payloads(kIndexPathsMax + 10);
  for (size_t row = 0; row < payloads.size(); ++row) {
    payloads[row]["user"] =
        Value::Object{{"u" + std::to_string(row), 1}, {"zz", Value::Object{{"deep", 7}}}};
  }
  FieldIndexOptions options;
  options.fields = std::vector<std::string>{"user.zz.deep", "user.zz.never"};
  const Segment segment(payloads, options);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  EXPECT_LE(index->fields_count(), kIndexPathsMax + 1);
  EXPECT_EQ(rows_where(*index, only("user.zz.deep", EqualTo{7})).size(), payloads.size());
  EXPECT_EQ(rows_where(*index, only("user.zz.never", Exists{})).size(), 0U) << "was asked for";
  const std::string late = "user.u" + std::to_string(kIndexPathsMax + 5);
  EXPECT_FALSE(check_answer(segment, *index, compiled(only(late, Exists{}))));
  EXPECT_FALSE(check_answer(segment, *index, compiled(only("nowhere", Exists{}))));
}

TEST(FieldIndex, AFullTableOfPathsHidesNoRowsOfAKnownPath) {
  std::vector<Payload> payloads(10);
  payloads[0]["a.b"] = 1;
  for (size_t i = 0; i < kIndexPathsMax; ++i) payloads[1]["k" + std::to_string(i)] = 1;
  for (size_t row = 2; row < payloads.size(); ++row) {
    payloads[row]["a"] = Value::Object{{"b", 1}};
  }
  const Segment segment(payloads);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  EXPECT_EQ(index->fields_count(), kIndexPathsMax);
  EXPECT_EQ(rows_where(*index, only("a.b", EqualTo{1})), (Rows{0, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_FALSE(check_answer(segment, *index, compiled(only("k4095", Exists{}))));
}

TEST(FieldIndex, TheStoredFormIsKept) {
  std::vector<Payload> payloads(2000);
  for (size_t row = 0; row < payloads.size(); ++row) {
    Payload& payload = payloads[row];
    payload["label"] = row % 3 == 0 ? "x" : row % 7 == 0 ? "\xC3\xA9" : "";
    payload["n"] = Value::Array{static_cast<int64_t>(row % 5), static_cast<double>(row) / 4, -0.0};
    if (row < 100) payload["big"] = UINT64_MAX - row % 4;
    if (row % 11 == 0) payload["o"] = Value::Object{{"flag", row % 2 == 0}, {"none", nullptr}};
  }
  // Indexes on disks have these bytes: a change needs a new version (docs/format.md).
  const std::string bytes = Segment(payloads).bytes();
  EXPECT_EQ(bytes.size(), 44056U);
  EXPECT_EQ(checksum(as_bytes_of(bytes), 0), 7152104268493762547U);
}

// ---- Hostile bytes ------------------------------------------------------------------------------

/// Asks everything; answers only have to be within the segment.
void ask(const Bytes bytes, uint64_t rows, const std::vector<CompiledFilter>& filters) {
  const auto index = FieldIndex::open(bytes, rows);
  if (!index) {
    EXPECT_EQ(index.status().code(), Code::kCorruption);
    return;
  }
  for (size_t i = 0; i < index->fields_count(); ++i) index->field(i);
  for (const CompiledFilter& filter : filters) {
    const IndexAnswer answer = filter.evaluate(*index);
    answer.upper.for_each([&](uint32_t row) { ASSERT_LT(row, rows); });
    EXPECT_LE(answer.upper.memory_bytes(), rows / 4 + 100000);
    const CountBounds bounds = filter.estimate(*index);
    EXPECT_LE(bounds.upper, rows);
  }
}

TEST(FieldIndex, HostileBytesAreRefusedOrHarmless) {
  Rng rng(7);
  std::vector<CompiledFilter> filters;
  for (int i = 0; i < 30; ++i) filters.push_back(compiled(random_filter(draw_from(&rng), 2)));
  for (int round = 0; round < 12; ++round) {
    Segment segment(random_payloads(&rng, round % 3 == 0 ? 2000 : 60));
    const std::string original = segment.bytes();
    for (int i = 0; i < 400; ++i) {
      std::string bytes = original;
      const uint64_t how = rng.below(8);
      if (how == 0) {
        bytes.resize(rng.below(bytes.size()));
        // As if it had always been that long.
        if (bytes.size() >= sizeof(FieldIndexHeader)) {
          const uint64_t size = bytes.size();
          std::memcpy(bytes.data() + offsetof(FieldIndexHeader, bytes), &size, sizeof(size));
        }
      } else if (how == 1) {
        // A whole word, often at an edge.
        const uint64_t word =
            pick<uint64_t>(draw_from(&rng), {0, 1, UINT64_MAX, UINT32_MAX, rng.next()});
        std::memcpy(bytes.data() + rng.below(bytes.size() / 8) * 8, &word, sizeof(word));
      } else {
        for (uint64_t left = 1 + rng.below(4); left > 0; --left) {
          bytes[rng.below(bytes.size())] ^= static_cast<char>(1U << rng.below(8));
        }
      }
      segment.set_bytes(bytes);
      ask(segment.index_bytes(), segment.rows_count(), filters);
      ASSERT_FALSE(HasFailure());
    }
  }
}

TEST(FieldIndex, DamageInOneFieldLeavesItsClausesOpen) {
  std::vector<Payload> payloads(1000);
  for (size_t row = 0; row < payloads.size(); ++row) {
    payloads[row]["a"] = static_cast<int64_t>(row % 2);
    payloads[row]["b"] = static_cast<int64_t>(row % 5);
  }
  Segment segment(payloads);
  const auto whole = segment.open();
  ASSERT_TRUE(whole.has_value());
  std::string bytes = segment.bytes();
  const uint64_t second_half = bytes.size() - whole->field(1).bytes;
  std::memset(bytes.data() + second_half + sizeof(FieldBlock), 0xFF,
              bytes.size() - second_half - sizeof(FieldBlock));
  segment.set_bytes(bytes);
  const auto index = segment.open();
  ASSERT_TRUE(index.has_value());
  EXPECT_TRUE(check_answer(segment, *index, compiled(only("a", EqualTo{1}))));
  EXPECT_FALSE(check_answer(segment, *index, compiled(only("b", EqualTo{1}))));
}

}  // namespace
}  // namespace aionbd::field_index_test
