#include "payload/filter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "payload/filter_model.h"
#include "payload/payload.h"

namespace aionbd {
namespace {

constexpr int64_t k2To53 = int64_t{1} << 53;

template <typename Test>
Clause clause(std::string field, Test test) {
  Clause out;
  out.field = std::move(field);
  out.test = std::move(test);
  return out;
}

Clause nested(Filter filter) {
  Clause out;
  out.nested = std::make_unique<Filter>(std::move(filter));
  return out;
}

template <typename... Clauses>
std::vector<Clause> clauses(Clauses... list) {
  std::vector<Clause> out;
  (out.push_back(std::move(list)), ...);
  return out;
}

Filter must(Clause only) {
  Filter filter;
  filter.must.push_back(std::move(only));
  return filter;
}

/// The compiled answer, which must also be the model's.
bool matches(const Filter& filter, const Payload& payload) {
  const auto compiled = CompiledFilter::compile(filter);
  const std::string bytes = encode_payload(payload).value();
  const bool answer = compiled.value().matches(as_bytes_of(bytes));
  EXPECT_EQ(answer, model_matches(filter, payload));
  return answer;
}

/// Whether `test` of field "f" holds when it has `value`.
template <typename Test>
bool holds(Test test, Value value) {
  return matches(must(clause("f", std::move(test))), {{"f", std::move(value)}});
}

InRange range(std::optional<Value> gt, std::optional<Value> gte, std::optional<Value> lt,
              std::optional<Value> lte) {
  return {std::move(gt), std::move(gte), std::move(lt), std::move(lte)};
}

std::string refusal(const Filter& filter) {
  const auto compiled = CompiledFilter::compile(filter);
  if (compiled) return "accepted";
  EXPECT_EQ(compiled.error().code(), Code::kInvalidArgument);
  return compiled.error().message();
}

TEST(Filter, EmptyMatchesEverything) {
  EXPECT_TRUE(matches({}, {}));
  EXPECT_TRUE(matches({}, {{"a", 1}}));
  EXPECT_TRUE(matches(must(nested({})), {}));
  Filter none;
  none.must_not = clauses(nested({}));
  EXPECT_FALSE(matches(none, {}));
}

TEST(Filter, EqualityComparesByKind) {
  // One of each kind; equal only to itself.
  const std::vector<Value> kinds{nullptr, false, true, 0, 1, "", "1", "true", "a", 0.5};
  for (size_t i = 0; i < kinds.size(); ++i) {
    for (size_t j = 0; j < kinds.size(); ++j) {
      EXPECT_EQ(holds(EqualTo{kinds[i]}, kinds[j]), i == j) << i << " " << j;
    }
  }
  EXPECT_FALSE(holds(EqualTo{"a"}, "A"));
  EXPECT_FALSE(holds(EqualTo{"a"}, std::string("a\0", 2)));
}

TEST(Filter, NumbersCompareExactly) {
  EXPECT_TRUE(holds(EqualTo{1}, 1.0));
  EXPECT_TRUE(holds(EqualTo{1.0}, 1));
  EXPECT_TRUE(holds(EqualTo{0}, -0.0));
  EXPECT_TRUE(holds(EqualTo{-0.0}, 0.0));
  EXPECT_TRUE(holds(EqualTo{0x1p53}, k2To53));
  EXPECT_FALSE(holds(EqualTo{0x1p53}, k2To53 + 1));  // equal after rounding to double
  EXPECT_FALSE(holds(EqualTo{k2To53 + 1}, 0x1p53));
  EXPECT_FALSE(holds(EqualTo{INT64_MAX}, 0x1p63));
  EXPECT_TRUE(holds(EqualTo{uint64_t{1} << 63}, 0x1p63));
  EXPECT_TRUE(holds(EqualTo{INT64_MIN}, -0x1p63));
  EXPECT_FALSE(holds(EqualTo{UINT64_MAX}, 0x1p64));
  EXPECT_FALSE(holds(EqualTo{UINT64_MAX}, -1));
  EXPECT_FALSE(holds(EqualTo{1}, 1.5));
  Value small = 0;
  small.data() = uint64_t{7};
  EXPECT_TRUE(holds(EqualTo{small}, 7));
}

TEST(Filter, ObjectsArraysAndNonFiniteEqualNothing) {
  const Value object = Value::Object{{"x", 1}};
  EXPECT_FALSE(holds(EqualTo{object}, object));
  EXPECT_FALSE(holds(EqualTo{Value::Array{1}}, Value::Array{1}));
  EXPECT_FALSE(holds(EqualTo{Value::Array{1}}, Value::Array{Value::Array{1}}));
  EXPECT_FALSE(holds(EqualTo{1}, object));
  EXPECT_FALSE(holds(EqualTo{INFINITY}, 1e308));
  EXPECT_FALSE(holds(EqualTo{NAN}, 0));
  EXPECT_TRUE(holds(AnyOf{{object, 1}}, 1));
  EXPECT_FALSE(holds(ContainsAll{{object, 1}}, Value::Array{object, 1}));
}

TEST(Filter, ArraysMatchIfAnyElementDoes) {
  const Value array = Value::Array{1, "abc", nullptr, Value::Array{5}};
  EXPECT_TRUE(holds(EqualTo{1}, array));
  EXPECT_TRUE(holds(EqualTo{nullptr}, array));
  EXPECT_FALSE(holds(EqualTo{5}, array));  // inside an inner array
  EXPECT_TRUE(holds(StartsWith{"ab"}, array));
  EXPECT_TRUE(holds(range(0, {}, 2, {}), array));
  EXPECT_FALSE(holds(range(4, {}, {}, {}), array));
  // Both bounds must hold for one and the same element.
  EXPECT_FALSE(holds(range(3, {}, 6, {}), Value::Array{1, 9}));
  EXPECT_FALSE(holds(EqualTo{nullptr}, Value::Array{}));
}

TEST(Filter, AnyOf) {
  EXPECT_TRUE(holds(AnyOf{{3, "x", 2.0}}, 2));
  EXPECT_TRUE(holds(AnyOf{{3, "x", 2.0}}, Value::Array{7, "x"}));
  EXPECT_FALSE(holds(AnyOf{{3, "x", 2.0}}, "y"));
  EXPECT_FALSE(holds(AnyOf{}, 1));
  std::vector<Value> many;
  for (int i = 0; i < 5000; ++i) many.emplace_back(i * 2);
  EXPECT_TRUE(holds(AnyOf{many}, 4998));
  EXPECT_FALSE(holds(AnyOf{many}, 4999));
}

TEST(Filter, ContainsAll) {
  EXPECT_TRUE(holds(ContainsAll{{1, "x"}}, Value::Array{"x", 2, 1.0}));
  EXPECT_FALSE(holds(ContainsAll{{1, "x"}}, Value::Array{1, 1, 2}));
  EXPECT_TRUE(holds(ContainsAll{{1, 1.0, 1}}, 1));  // the same value three times
  EXPECT_FALSE(holds(ContainsAll{{1, 2}}, 1));
  EXPECT_TRUE(holds(ContainsAll{}, Value::Array{}));
  EXPECT_TRUE(holds(ContainsAll{}, Value::Object{}));
  EXPECT_FALSE(matches(must(clause("f", ContainsAll{})), {{"g", 1}}));
  std::vector<Value> many;
  for (size_t i = 0; i < kFilterClausesMax; ++i) many.emplace_back(int64_t(i));
  EXPECT_TRUE(holds(ContainsAll{many}, many));
  many.emplace_back("one more");
  EXPECT_EQ(refusal(must(clause("f", ContainsAll{many}))),
            "filter.must[0].contains_all has too many values: at most 1024, got 1025");
}

TEST(Filter, RangesHoldExactlyAtTheirBounds) {
  EXPECT_FALSE(holds(range(1, {}, {}, {}), 1.0));
  EXPECT_TRUE(holds(range({}, 1, {}, {}), 1.0));
  EXPECT_FALSE(holds(range({}, {}, 1, {}), 1));
  EXPECT_TRUE(holds(range({}, {}, {}, 1), 1));
  EXPECT_TRUE(holds(range(0x1p53, {}, {}, {}), k2To53 + 1));
  EXPECT_TRUE(holds(range({}, {}, 0x1p63, {}), INT64_MAX));
  EXPECT_TRUE(holds(range(INT64_MAX, {}, {}, {}), 0x1p63));
  EXPECT_TRUE(holds(range({}, {}, 0x1p64, {}), UINT64_MAX));
  EXPECT_TRUE(holds(range(-1, {}, 0, {}), -0.5));
  EXPECT_FALSE(holds(range({}, 0, {}, {}), -0.5));
  EXPECT_TRUE(holds(range(0, {}, {}, {}), 5e-324));
  EXPECT_TRUE(holds(range(1e308, {}, {}, {}), 1.5e308));
  EXPECT_FALSE(holds(range(2, {}, 1, {}), 1.5));  // empty
  EXPECT_FALSE(holds(range(0, {}, {}, {}), "5"));
  EXPECT_FALSE(holds(range(0, {}, {}, {}), true));
}

TEST(Filter, PrefixConcernsStringsByBytes) {
  EXPECT_TRUE(holds(StartsWith{""}, ""));
  EXPECT_TRUE(holds(StartsWith{"ab"}, "ab"));
  EXPECT_FALSE(holds(StartsWith{"ab"}, "a"));
  EXPECT_FALSE(holds(StartsWith{"A"}, "ab"));
  EXPECT_TRUE(holds(StartsWith{"\xC3"}, "\xC3\xA9"));
  EXPECT_FALSE(holds(StartsWith{""}, 1));
  EXPECT_FALSE(holds(StartsWith{""}, nullptr));
}

TEST(Filter, ExistsConcernsTheKey) {
  EXPECT_TRUE(holds(Exists{true}, nullptr));
  EXPECT_TRUE(holds(Exists{true}, Value::Object{}));
  EXPECT_FALSE(holds(Exists{false}, nullptr));
  EXPECT_FALSE(matches(must(clause("f", Exists{true})), {{"g", 1}}));
  EXPECT_TRUE(matches(must(clause("f", Exists{false})), {{"g", 1}}));
}

TEST(Filter, MissingFieldMatchesNothing) {
  const Payload payload{{"g", 1}};
  EXPECT_FALSE(matches(must(clause("f", EqualTo{nullptr})), payload));
  EXPECT_FALSE(matches(must(clause("f", StartsWith{})), payload));
  EXPECT_FALSE(matches(must(clause("f", range(0, {}, {}, {}))), payload));
  Filter none;
  none.must_not = clauses(clause("f", EqualTo{1}));
  EXPECT_TRUE(matches(none, payload));
}

TEST(Filter, DottedPaths) {
  const auto at = [](std::string field, Payload payload) {
    return matches(must(clause(std::move(field), EqualTo{1})), payload);
  };
  const Value one_in_b = Value::Object{{"b", 1}};
  EXPECT_TRUE(at("a.b", {{"a", one_in_b}}));
  EXPECT_TRUE(at("a.b", {{"a.b", 1}}));
  EXPECT_FALSE(at("a.b", {{"a", one_in_b}, {"a.b", 2}}));  // the literal key wins
  EXPECT_TRUE(at("a.b", {{"a", 2}, {"a.b", 1}}));
  EXPECT_TRUE(at("a.b.c", {{"a", Value::Object{{"b.c", 1}}}}));
  EXPECT_TRUE(at("a.b.c", {{"a", Value::Object{{"b", Value::Object{{"c", 1}}}}}}));
  EXPECT_FALSE(at("a.b.c", {{"a.b", Value::Object{{"c", 1}}}}));  // no other split is tried
  EXPECT_FALSE(at("a.b", {{"a", Value::Array{one_in_b}}}));       // arrays are not entered
  EXPECT_FALSE(at("a.b", {{"a", "b"}}));
  for (const char* odd : {"a.", ".b", ".", "a..b"}) EXPECT_FALSE(at(odd, {{"a", one_in_b}})) << odd;
  EXPECT_TRUE(at("a.", {{"a.", 1}}));
}

TEST(Filter, ShouldNeedsItsMinimum) {
  const auto two_of = [](std::optional<uint32_t> minimum, Payload payload) {
    Filter filter;
    filter.should =
        clauses(clause("a", EqualTo{1}), clause("b", EqualTo{1}), clause("c", EqualTo{1}));
    filter.minimum_should_match = minimum;
    return matches(filter, payload);
  };
  const Payload ones[4] = {{}, {{"c", 1}}, {{"a", 1}, {"c", 1}}, {{"a", 1}, {"b", 1}, {"c", 1}}};
  for (uint32_t hits = 0; hits <= 3; ++hits) {
    EXPECT_EQ(two_of({}, ones[hits]), hits >= 1);
    for (uint32_t minimum = 0; minimum <= 3; ++minimum) {
      EXPECT_EQ(two_of(minimum, ones[hits]), hits >= minimum) << hits << " " << minimum;
    }
  }
}

TEST(Filter, CountersOfNestedFiltersAreApart) {
  const auto pair = [](const char* x, const char* y) {
    Filter filter;
    filter.should = clauses(clause(x, Exists{}), clause(y, Exists{}));
    filter.minimum_should_match = 2;
    return filter;
  };
  Filter filter;
  filter.should = clauses(nested(pair("a", "b")), nested(pair("c", "d")), nested(pair("e", "f")));
  filter.minimum_should_match = 2;
  EXPECT_TRUE(matches(filter, {{"a", 1}, {"b", 1}, {"e", 1}, {"f", 1}}));
  EXPECT_FALSE(matches(filter, {{"a", 1}, {"b", 1}, {"c", 1}, {"e", 1}}));
}

TEST(Filter, RefusalsNameTheClause) {
  const auto in_range = [](InRange test) { return clause("f", std::move(test)); };
  Filter filter;
  filter.must =
      clauses(clause("f", EqualTo{1}), clause("f", Exists{}), in_range(range("x", {}, {}, {})));
  EXPECT_EQ(refusal(filter), "filter.must[2].gt must be a finite number");
  EXPECT_EQ(refusal(must(in_range(range({}, NAN, {}, {})))),
            "filter.must[0].gte must be a finite number");
  EXPECT_EQ(refusal(must(in_range(range({}, {}, INFINITY, {})))),
            "filter.must[0].lt must be a finite number");
  EXPECT_EQ(refusal(must(in_range(range(1, {}, {}, true)))),
            "filter.must[0].lte must be a finite number");
  EXPECT_EQ(refusal(must(in_range({}))), "filter.must[0] needs at least one of gt, gte, lt, lte");
  EXPECT_EQ(refusal(must(clause(" ", Exists{}))), "filter.must[0].field must not be blank");

  Filter inner;
  inner.should = clauses(clause("a", Exists{}), clause("", Exists{}));
  inner.minimum_should_match = 0;  // ignored clauses are checked all the same
  Filter outer;
  outer.must_not = clauses(clause("a", Exists{}), nested(std::move(inner)));
  EXPECT_EQ(refusal(outer), "filter.must_not[1].should[1].field must not be blank");
}

TEST(Filter, MinimumShouldMatchIsBounded) {
  Filter filter;
  filter.minimum_should_match = 0;
  EXPECT_EQ(refusal(filter), "accepted");
  filter.minimum_should_match = 1;
  EXPECT_EQ(refusal(filter),
            "filter.minimum_should_match exceeds the number of should clauses: got 1, have 0");
  filter.should = clauses(clause("a", Exists{}));
  EXPECT_EQ(refusal(filter), "accepted");
  filter.minimum_should_match = UINT32_MAX;
  EXPECT_EQ(
      refusal(must(nested(std::move(filter)))),
      "filter.must[0].minimum_should_match exceeds the number of should clauses: got 4294967295, "
      "have 1");
}

TEST(Filter, NestingIsBounded) {
  const auto chain = [](size_t levels) {
    Filter filter = must(clause("a", EqualTo{1}));
    for (size_t i = 1; i < levels; ++i) filter = must(nested(std::move(filter)));
    return filter;
  };
  EXPECT_TRUE(matches(chain(kNestingMax), {{"a", 1}}));
  EXPECT_FALSE(matches(chain(kNestingMax), {{"a", 2}}));
  EXPECT_EQ(refusal(chain(kNestingMax + 1)), "filter is nested too deeply: at most 64 levels");

  // The deepest counter.
  Filter deep;
  deep.should = clauses(clause("a", Exists{}), clause("b", Exists{}));
  deep.minimum_should_match = 2;
  for (size_t i = 1; i < kNestingMax; ++i) deep = must(nested(std::move(deep)));
  EXPECT_TRUE(matches(deep, {{"a", 1}, {"b", 1}}));
  EXPECT_FALSE(matches(deep, {{"a", 1}}));
}

TEST(Filter, ClausesAreBounded) {
  Filter filter;
  for (size_t i = 0; i < kFilterClausesMax; ++i)
    filter.must_not.push_back(clause("a", EqualTo{int64_t(i)}));
  EXPECT_FALSE(matches(filter, {{"a", 1023}}));
  EXPECT_TRUE(matches(filter, {{"a", 1024}}));
  filter.must.push_back(clause("a", Exists{}));
  EXPECT_EQ(refusal(filter), "filter has too many clauses: at most 1024");
  // Nested ones count, and so does the clause that holds them.
  filter.must_not.pop_back();
  filter.must_not.pop_back();
  filter.must.clear();
  filter.must.push_back(nested(must(clause("a", Exists{}))));
  EXPECT_EQ(refusal(filter), "accepted");
  filter.must.push_back(nested({}));
  EXPECT_EQ(refusal(filter), "filter has too many clauses: at most 1024");
}

TEST(Filter, RandomOnesAgreeWithTheModelAndWithTheirNegation) {
  constexpr int kFilters = 4000;
  constexpr int kPayloadsEach = 25;  // 100k evaluations
  Rng rng(77);
  const Draw draw = [&](uint64_t bound) { return rng.below(bound); };
  size_t hits = 0;
  for (int i = 0; i < kFilters; ++i) {
    Filter filter = random_filter(draw, 3);
    const auto compiled = CompiledFilter::compile(filter);
    ASSERT_TRUE(compiled) << i << ": " << compiled.error().message();
    std::vector<std::string> bytes;
    std::vector<bool> answers;
    for (int j = 0; j < kPayloadsEach; ++j) {
      const Payload payload = random_object(draw, 3);
      bytes.push_back(encode_payload(payload).value());
      answers.push_back(compiled->matches(as_bytes_of(bytes.back())));
      ASSERT_EQ(answers.back(), model_matches(filter, payload)) << i << " " << j;
      hits += answers.back();
    }
    Filter opposite;
    opposite.must_not = clauses(nested(std::move(filter)));
    const auto negated = CompiledFilter::compile(opposite);
    ASSERT_TRUE(negated) << i;
    for (size_t j = 0; j < bytes.size(); ++j) {
      ASSERT_NE(negated->matches(as_bytes_of(bytes[j])), answers[j]) << i << " " << j;
    }
  }
  // Neither nearly all nor nearly none, or the comparison would be empty.
  EXPECT_GT(hits, kFilters * kPayloadsEach / 20U);
  EXPECT_LT(hits, kFilters * kPayloadsEach * 19U / 20U);
}

TEST(Filter, DeMorgan) {
  Rng rng(78);
  for (int i = 0; i < 4000; ++i) {
    // The same two clauses twice: filters cannot be copied, seeds can.
    const uint64_t seed = rng.next();
    const auto two = [&] {
      Rng again(seed);
      const Draw draw = [&](uint64_t bound) { return again.below(bound); };
      Clause a = random_clause(draw, 2);
      return clauses(std::move(a), random_clause(draw, 2));
    };
    Filter both;  // not (a and b)
    both.must = two();
    Filter not_both;
    not_both.must_not = clauses(nested(std::move(both)));
    Filter either_not;  // not a, or not b
    for (Clause& each : two()) {
      Filter negated;
      negated.must_not.push_back(std::move(each));
      either_not.should.push_back(nested(std::move(negated)));
    }
    const auto left = CompiledFilter::compile(not_both);
    const auto right = CompiledFilter::compile(either_not);
    const Draw draw = [&](uint64_t bound) { return rng.below(bound); };
    for (int j = 0; j < 10; ++j) {
      const std::string bytes = encode_payload(random_object(draw, 3)).value();
      ASSERT_EQ(left.value().matches(as_bytes_of(bytes)),
                right.value().matches(as_bytes_of(bytes)));
    }
  }
}

}  // namespace
}  // namespace aionbd
