// A filter as a value: what the caller asks of a payload. `payload/filter.h` compiles it.
//
// Semantics (HTTP contract, "Filter"): values compare by type (numbers with numbers whatever their
// representation, `true` is not 1, strings by bytes); a scalar counts as a one-element array; an
// array matches if any element does; a missing field matches nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "aionbd/types.h"

namespace aionbd {

struct Filter;

/// Equal to `value`: null, boolean, number or string. (Objects and arrays equal nothing.)
struct EqualTo {
  Value value;
};
/// Equal to any of `values`. An empty list matches nothing.
struct AnyOf {
  std::vector<Value> values;
};
/// The field's elements include all of `values`. An empty list matches every point with the field.
struct ContainsAll {
  std::vector<Value> values;
};
/// Some numeric element lies within every given bound. At least one bound is given.
struct InRange {
  std::optional<Value> gt, gte, lt, lte;  // each a number
};
/// The key is there (`null` included), or is not.
struct Exists {
  bool exists = true;
};
/// Some string element starts with `prefix`; the empty prefix matches every string.
struct StartsWith {
  std::string prefix;
};

/// One clause: a test of one field, or a filter inside the filter.
struct Clause {
  /// Dotted path into nested objects: "a.b" is key "b" of the object at key "a" (or, first, the key
  /// "a.b" itself). Unused when `nested` is set.
  std::string field;
  std::variant<EqualTo, AnyOf, ContainsAll, InRange, Exists, StartsWith> test;
  std::unique_ptr<Filter> nested;
};

/// All of `must`, none of `must_not`, and at least `minimum_should_match` of `should` (default 1
/// when there is any `should`). An empty filter matches everything.
/// At most kNestingMax deep and kFilterClausesMax clauses in all.
struct Filter {
  std::vector<Clause> must;
  std::vector<Clause> should;
  std::vector<Clause> must_not;
  std::optional<uint32_t> minimum_should_match;
};

}  // namespace aionbd
