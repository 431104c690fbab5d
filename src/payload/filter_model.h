// Test only: the meaning of filters written a second time, directly over values, to be compared
// with the compiled program; and random payloads and filters that meet often enough to be
// interesting.
//
// Numbers are compared as long double, which holds every int64, uint64 and double exactly on the
// platforms we support (64 bits of significand on x86-64, 113 on AArch64).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "aionbd/filter.h"
#include "aionbd/types.h"

namespace aionbd {

static_assert(std::numeric_limits<long double>::digits >= 64);

// ---- The model ----------------------------------------------------------------------------------

inline std::optional<long double> model_number(const Value& value) {
  if (const auto* i = std::get_if<int64_t>(&value.data())) return *i;
  if (const auto* u = std::get_if<uint64_t>(&value.data())) return *u;
  if (const auto* d = std::get_if<double>(&value.data())) return *d;
  return std::nullopt;
}

inline bool model_equal(const Value& a, const Value& b) {
  const auto a_number = model_number(a);
  const auto b_number = model_number(b);
  if (a_number && b_number) return *a_number == *b_number;
  if (std::holds_alternative<Value::Array>(a.data())) return false;
  if (std::holds_alternative<Value::Object>(a.data())) return false;
  return a == b;
}

inline const Value* model_find(const Value::Object& object, std::string_view path) {
  if (const auto whole = object.find(path); whole != object.end()) return &whole->second;
  const size_t dot = path.find('.');
  if (dot == std::string_view::npos) return nullptr;
  const auto head = object.find(path.substr(0, dot));
  if (head == object.end()) return nullptr;
  const auto* below = std::get_if<Value::Object>(&head->second.data());
  return below == nullptr ? nullptr : model_find(*below, path.substr(dot + 1));
}

inline bool model_any(const Value& value, const std::function<bool(const Value&)>& test) {
  const auto* array = std::get_if<Value::Array>(&value.data());
  return array == nullptr ? test(value) : std::any_of(array->begin(), array->end(), test);
}

inline bool model_in_range(const InRange& range, const Value& value) {
  const auto number = model_number(value);
  if (!number) return false;
  if (range.gt && !(*number > *model_number(*range.gt))) return false;
  if (range.gte && !(*number >= *model_number(*range.gte))) return false;
  if (range.lt && !(*number < *model_number(*range.lt))) return false;
  return !range.lte || *number <= *model_number(*range.lte);
}

inline bool model_clause(const Clause& clause, const Payload& payload);

/// REQUIRES: CompiledFilter::compile(filter) succeeds.
inline bool model_matches(const Filter& filter, const Payload& payload) {
  const auto holds = [&](const Clause& clause) { return model_clause(clause, payload); };
  const auto hits = std::count_if(filter.should.begin(), filter.should.end(), holds);
  const uint32_t needed = filter.minimum_should_match.value_or(filter.should.empty() ? 0 : 1);
  return std::all_of(filter.must.begin(), filter.must.end(), holds) &&
         std::none_of(filter.must_not.begin(), filter.must_not.end(), holds) && hits >= needed;
}

inline bool model_clause(const Clause& clause, const Payload& payload) {
  if (clause.nested) return model_matches(*clause.nested, payload);
  const Value* value = model_find(payload, clause.field);
  if (const auto* test = std::get_if<Exists>(&clause.test)) {
    return test->exists == (value != nullptr);
  }
  if (value == nullptr) return false;
  const auto has = [value](const Value& wanted) {
    return model_any(*value, [&](const Value& element) { return model_equal(element, wanted); });
  };
  if (const auto* test = std::get_if<EqualTo>(&clause.test)) return has(test->value);
  if (const auto* test = std::get_if<AnyOf>(&clause.test)) {
    return std::any_of(test->values.begin(), test->values.end(), has);
  }
  if (const auto* test = std::get_if<ContainsAll>(&clause.test)) {
    return std::all_of(test->values.begin(), test->values.end(), has);
  }
  if (const auto* test = std::get_if<InRange>(&clause.test)) {
    return model_any(*value, [&](const Value& element) { return model_in_range(*test, element); });
  }
  const auto& prefix = std::get<StartsWith>(clause.test).prefix;
  return model_any(*value, [&](const Value& element) {
    const auto* text = std::get_if<std::string>(&element.data());
    return text != nullptr && text->starts_with(prefix);
  });
}

// ---- Random payloads and filters ----------------------------------------------------------------

/// A number below the bound (> 0), from a seed or from a fuzzer's bytes.
using Draw = std::function<uint64_t(uint64_t bound)>;

template <typename T>
T pick(const Draw& draw, std::initializer_list<T> choices) {
  return *(choices.begin() + static_cast<std::ptrdiff_t>(draw(choices.size())));
}

/// From a small set full of pairs that are close, equal across kinds, or at an edge.
inline Value random_scalar(const Draw& draw) {
  constexpr int64_t k2To53 = int64_t{1} << 53;
  switch (draw(8)) {
    case 0: return nullptr;
    case 1: return draw(2) == 1;
    case 2: return pick<int64_t>(draw, {-1, 0, 1, 2, 3});
    case 3:
      return pick<int64_t>(draw, {k2To53, k2To53 + 1, -k2To53 - 1, INT64_MAX, INT64_MAX - 1,
                                  INT64_MIN, INT64_MIN + 1});
    case 4:
      return pick<uint64_t>(
          draw, {uint64_t{1} << 63, (uint64_t{1} << 63) + 1, UINT64_MAX, UINT64_MAX - 1});
    case 5: return pick<double>(draw, {0.0, -0.0, 1.0, 1.5, 2.0, -1.0, -0.5, 0.5});
    case 6:
      return pick<double>(draw, {0x1p53, -0x1p53, 0x1p63, -0x1p63, 0x1p64, 0x1.fffffffffffffp62,
                                 0x1.fffffffffffffp63, 1e308, -1e308, 5e-324});
    default:
      return pick<std::string>(
          draw, {"", "a", "ab", "abc", "b", "\xC3\xA9", std::string("a\0b", 3), "1", "true"});
  }
}

inline Value random_value(const Draw& draw, size_t depth);

inline Value::Object random_object(const Draw& draw, size_t depth) {
  Value::Object object;
  for (uint64_t left = draw(5); left > 0; --left) {
    const auto key = pick<std::string>(draw, {"a", "b", "c", "a.b", "b.c", "a.b.c", "\xC3\xA9"});
    object.insert_or_assign(key, random_value(draw, depth));
  }
  return object;
}

/// `depth`: levels of arrays and objects still allowed.
inline Value random_value(const Draw& draw, size_t depth) {
  const uint64_t kind = draw(6);
  if (depth == 0 || kind < 3) return random_scalar(draw);
  if (kind < 5) return random_object(draw, depth - 1);
  Value::Array array;
  for (uint64_t left = draw(4); left > 0; --left) array.push_back(random_value(draw, depth - 1));
  return array;
}

inline std::vector<Value> random_wanted(const Draw& draw) {
  std::vector<Value> values;
  for (uint64_t left = draw(4); left > 0; --left) {
    values.push_back(draw(8) == 0 ? random_value(draw, 1) : random_scalar(draw));
  }
  return values;
}

inline InRange random_range(const Draw& draw) {
  const auto bound = [&]() -> Value {
    for (int i = 0; i < 8; ++i) {
      Value value = random_scalar(draw);
      if (model_number(value)) return value;
    }
    return 0;
  };
  InRange range;
  const uint64_t which = 1 + draw(15);
  if (which & 1) range.gt = bound();
  if (which & 2) range.gte = bound();
  if (which & 4) range.lt = bound();
  if (which & 8) range.lte = bound();
  return range;
}

inline Filter random_filter(const Draw& draw, size_t depth);

inline Clause random_clause(const Draw& draw, size_t depth) {
  Clause clause;
  if (depth > 0 && draw(4) == 0) {
    clause.nested = std::make_unique<Filter>(random_filter(draw, depth - 1));
    return clause;
  }
  clause.field = pick<std::string>(
      draw, {"a", "b", "c", "a.b", "b.c", "a.b.c", "a.", ".a", "a..b", "\xC3\xA9", "b.a.b.c"});
  switch (draw(6)) {
    case 0: clause.test = EqualTo{random_scalar(draw)}; break;
    case 1: clause.test = AnyOf{random_wanted(draw)}; break;
    case 2: clause.test = ContainsAll{random_wanted(draw)}; break;
    case 3: clause.test = random_range(draw); break;
    case 4: clause.test = Exists{draw(2) == 1}; break;
    default: clause.test = StartsWith{pick<std::string>(draw, {"", "a", "ab", "\xC3"})};
  }
  return clause;
}

/// Always compiles. `depth`: levels of nesting still allowed below this one.
inline Filter random_filter(const Draw& draw, size_t depth) {
  Filter filter;
  for (uint64_t left = draw(3); left > 0; --left) filter.must.push_back(random_clause(draw, depth));
  for (uint64_t left = draw(5); left > 0; --left)
    filter.should.push_back(random_clause(draw, depth));
  for (uint64_t left = draw(3); left > 0; --left) {
    filter.must_not.push_back(random_clause(draw, depth));
  }
  if (draw(2) == 1) {
    filter.minimum_should_match = static_cast<uint32_t>(draw(filter.should.size() + 1));
  }
  return filter;
}

}  // namespace aionbd
