// Compiling filters to jump code and running it over encoded payloads.
//
// Each test of a field becomes one step with a target for true and one for false; "all", "any" and
// "none" are nothing but the choice of targets (the classic translation of boolean expressions with
// inherited labels: Aho, Sethi, Ullman, "Compilers", 1986, section 8.4). So a filter of any depth
// runs as one loop over a flat list, and every jump goes forward, which bounds the run by the
// number of steps. Only a minimum_should_match above 1 needs state: a counter, one per nesting
// level, because filters at the same level never overlap in time.
#include "payload/filter.h"

#include <algorithm>
#include <array>
#include <bit>
#include <bitset>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "aionbd/types.h"
#include "base/utf8.h"
#include "payload/payload_layout.h"

namespace aionbd {

namespace {

// ---- Scalars: what stored elements and wanted values are compared as ----------------------------

/// A comparable value: null, boolean, number or string. `text` is not owned.
struct Scalar {
  ValueTag tag = ValueTag::kNull;
  uint64_t bits = 0;  // of a number
  std::string_view text;
};

template <typename T>
int three_way(T a, T b) {
  return static_cast<int>(a > b) - static_cast<int>(a < b);
}

/// Exact order of an integer and a finite double: the double is split into whole part and fraction,
/// nothing is rounded.
template <typename Integer>
int order_integer_double(Integer a, double b) {
  constexpr int kValueBits = std::numeric_limits<Integer>::digits;  // 63 or 64
  const double limit = std::ldexp(1.0, kValueBits);
  if (b >= limit) return -1;
  if (b < static_cast<double>(std::numeric_limits<Integer>::min())) return 1;
  const auto whole = static_cast<Integer>(b);  // toward zero, in range
  if (a != whole) return a < whole ? -1 : 1;
  return three_way(0.0, b - static_cast<double>(whole));
}

/// -1, 0 or 1 by exact value. REQUIRES: both numbers, and doubles finite.
int order_numbers(const Scalar& a, const Scalar& b) {
  const auto as_double = [](const Scalar& x) { return std::bit_cast<double>(x.bits); };
  if (a.tag == b.tag) {
    switch (a.tag) {
      case ValueTag::kInt64:
        return three_way(static_cast<int64_t>(a.bits), static_cast<int64_t>(b.bits));
      case ValueTag::kUint64: return three_way(a.bits, b.bits);
      default: return three_way(as_double(a), as_double(b));
    }
  }
  if (b.tag == ValueTag::kDouble) {
    return a.tag == ValueTag::kInt64
               ? order_integer_double(static_cast<int64_t>(a.bits), as_double(b))
               : order_integer_double(a.bits, as_double(b));
  }
  if (a.tag == ValueTag::kDouble) return -order_numbers(b, a);
  // A kUint64 is above every kInt64: smaller ones are stored as kInt64.
  return a.tag == ValueTag::kInt64 ? -1 : 1;
}

/// A total order in which equal means equal to a filter: null, false, true, numbers, strings.
int order_scalars(const Scalar& a, const Scalar& b) {
  const bool a_number = is_number(a.tag);
  if (a_number && is_number(b.tag)) return order_numbers(a, b);
  if (a.tag != b.tag) return a.tag < b.tag ? -1 : 1;  // a number lies between the tags around it
  if (a.tag == ValueTag::kString) return three_way(a.text.compare(b.text), 0);
  return 0;
}

bool is_scalar(ValueTag tag) {
  return tag < ValueTag::kArray;
}

/// REQUIRES: is_scalar(stored.tag).
Scalar scalar_of(const StoredValue& stored) {
  if (is_number(stored.tag)) return {stored.tag, load<uint64_t>(stored.body.data()), {}};
  return {stored.tag, 0, as_text(stored.body)};
}

/// The scalar that `value` is, for comparing; none when no stored element can equal it.
std::optional<Scalar> scalar_of(const Value& value) {
  const Value::Data& data = value.data();
  if (std::holds_alternative<std::nullptr_t>(data)) return Scalar{};
  if (const bool* flag = std::get_if<bool>(&data)) {
    return Scalar{*flag ? ValueTag::kTrue : ValueTag::kFalse, 0, {}};
  }
  if (const int64_t* number = std::get_if<int64_t>(&data)) {
    return Scalar{ValueTag::kInt64, static_cast<uint64_t>(*number), {}};
  }
  if (const uint64_t* number = std::get_if<uint64_t>(&data)) {
    const bool small = *number <= uint64_t{std::numeric_limits<int64_t>::max()};
    return Scalar{small ? ValueTag::kInt64 : ValueTag::kUint64, *number, {}};
  }
  if (const double* number = std::get_if<double>(&data)) {
    if (!std::isfinite(*number)) return std::nullopt;
    return Scalar{ValueTag::kDouble, std::bit_cast<uint64_t>(*number), {}};
  }
  if (const std::string* text = std::get_if<std::string>(&data)) {
    return Scalar{ValueTag::kString, 0, *text};
  }
  return std::nullopt;
}

// ---- The program --------------------------------------------------------------------------------

enum class BoundKind : uint8_t { kGt, kGte, kLt, kLte };

/// A wanted value of a test, or a bound of a range. Owns its text.
struct Operand {
  explicit Operand(const Scalar& from) : tag(from.tag), bits(from.bits), text(from.text) {}
  Scalar scalar() const { return {tag, bits, text}; }

  ValueTag tag;
  BoundKind bound = BoundKind::kGt;  // of a range
  uint64_t bits;
  std::string text;
};

enum class StepKind : uint8_t {
  kEquals,       // some element equals the one operand
  kAnyOf,        // some element equals one of the operands, which are sorted and distinct
  kContainsAll,  // every operand (sorted, distinct) is equalled by some element
  kRange,        // some numeric element lies within all bounds
  kPrefix,       // some string element starts with the one operand
  kExists,       // the field is there
  kJump,         // to on_true
  kResetCount,   // counter = 0, to on_true
  kCount,        // counter + 1; has it reached `needed`?
};

using Target = uint32_t;

struct Step {
  StepKind kind = StepKind::kJump;
  uint32_t needed = 0;  // of kCount
  size_t level = 0;     // of kResetCount and kCount
  Target on_true = 0;
  Target on_false = 0;
  std::string field;
  size_t first_dot = std::string::npos;  // in `field`
  size_t operands_begin = 0;
  size_t operands_count = 0;
};

// ---- Running ------------------------------------------------------------------------------------

/// The value at the dotted path `field` of the object `entries`; see the rule in filter.h.
std::optional<StoredValue> find_field(Bytes entries, std::string_view field, size_t first_dot) {
  for (;;) {
    const bool dotted = first_dot != std::string_view::npos;
    const std::string_view head = field.substr(0, dotted ? first_dot : field.size());
    std::optional<StoredValue> below;
    const std::byte* at = entries.data();
    const std::byte* const end = at + entries.size();
    while (at < end) {
      const std::string_view key = read_key(at);
      const StoredValue value = read_value(at);
      if (key == field) return value;
      if (dotted && key == head) below = value;
      // Keys ascend by bytes; comparing the first byte is nearly free and usually enough.
      if (static_cast<uint8_t>(key[0]) > static_cast<uint8_t>(field.empty() ? '\0' : field[0])) {
        break;
      }
    }
    if (!below || below->tag != ValueTag::kObject) return std::nullopt;
    entries = below->body;
    field.remove_prefix(first_dot + 1);
    first_dot = field.find('.');
  }
}

/// Whether `test` holds for some element of `value` (itself, unless it is an array).
template <typename Test>
bool any_element(const StoredValue& value, const Test& test) {
  if (is_scalar(value.tag)) return test(scalar_of(value));
  if (value.tag == ValueTag::kObject) return false;
  const std::byte* at = value.body.data();
  const std::byte* const end = at + value.body.size();
  while (at < end) {
    const StoredValue element = read_value(at);
    if (is_scalar(element.tag) && test(scalar_of(element))) return true;
  }
  return false;
}

using Operands = std::span<const Operand>;

/// The operand equal to `element`, or null. REQUIRES: `operands` sorted by order_scalars.
const Operand* find_operand(Operands operands, const Scalar& element) {
  size_t low = 0;
  size_t high = operands.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const int order = order_scalars(element, operands[middle].scalar());
    if (order == 0) return &operands[middle];
    (order < 0 ? high : low) = order < 0 ? middle : middle + 1;
  }
  return nullptr;
}

bool contains_all(const StoredValue& value, Operands operands) {
  if (operands.empty()) return true;
  std::bitset<kFilterClausesMax> seen;
  size_t missing = operands.size();
  return any_element(value, [&](const Scalar& element) {
    const Operand* found = find_operand(operands, element);
    if (found == nullptr) return false;
    const auto i = static_cast<size_t>(found - operands.data());
    if (seen[i]) return false;
    seen[i] = true;
    return --missing == 0;
  });
}

bool within(const Scalar& element, Operands bounds) {
  if (!is_number(element.tag)) return false;
  return std::all_of(bounds.begin(), bounds.end(), [&](const Operand& bound) {
    const int order = order_numbers(element, bound.scalar());
    switch (bound.bound) {
      case BoundKind::kGt: return order > 0;
      case BoundKind::kGte: return order >= 0;
      case BoundKind::kLt: return order < 0;
      case BoundKind::kLte: return order <= 0;
    }
    return false;
  });
}

bool test_field(const Step& step, Operands operands, Bytes payload) {
  const auto value = find_field(payload, step.field, step.first_dot);
  if (!value) return false;
  switch (step.kind) {
    case StepKind::kEquals: {
      const Scalar wanted = operands[0].scalar();
      return any_element(*value, [&](const Scalar& e) { return order_scalars(e, wanted) == 0; });
    }
    case StepKind::kAnyOf:
      return any_element(*value,
                         [&](const Scalar& e) { return find_operand(operands, e) != nullptr; });
    case StepKind::kContainsAll: return contains_all(*value, operands);
    case StepKind::kRange:
      return any_element(*value, [&](const Scalar& e) { return within(e, operands); });
    case StepKind::kPrefix:
      return any_element(*value, [&](const Scalar& e) {
        return e.tag == ValueTag::kString && e.text.starts_with(operands[0].text);
      });
    case StepKind::kExists: return true;
    case StepKind::kJump:
    case StepKind::kResetCount:
    case StepKind::kCount: break;
  }
  return false;
}

}  // namespace

/// Steps run from the front; `steps.size()` as a target accepts the payload, one more refuses it.
struct CompiledFilter::Program {
  std::vector<Step> steps;
  std::vector<Operand> operands;

  bool matches(Bytes payload) const;
};

bool CompiledFilter::Program::matches(Bytes payload) const {
  std::array<uint32_t, kNestingMax> counts;  // each set by kResetCount before it is used
  size_t at = 0;
  while (at < steps.size()) {
    const Step& step = steps[at];
    bool holds = true;
    switch (step.kind) {
      case StepKind::kJump: break;
      case StepKind::kResetCount: counts[step.level] = 0; break;
      case StepKind::kCount: holds = ++counts[step.level] >= step.needed; break;
      default:
        holds = test_field(
            step, Operands(operands).subspan(step.operands_begin, step.operands_count), payload);
    }
    at = holds ? step.on_true : step.on_false;
  }
  return at == steps.size();
}

// ---- Compiling ----------------------------------------------------------------------------------

namespace {

/// Emits steps whose targets are labels; `finish` turns labels into positions.
/// Recurses once per nesting level of the filter, at most kNestingMax deep.
/// Thread safety: single owner.
class FilterCompiler {
 public:
  FilterCompiler(std::vector<Step>* steps, std::vector<Operand>* operands)
      : steps_(*steps), operands_(*operands) {}

  Status compile(const Filter& filter) {
    const Target accept = new_label();
    const Target refuse = new_label();
    RETURN_IF_ERROR(add_filter(filter, 1, accept, refuse));
    positions_[accept] = static_cast<Target>(steps_.size());
    positions_[refuse] = static_cast<Target>(steps_.size() + 1);
    for (Step& step : steps_) {
      step.on_true = positions_[step.on_true];
      step.on_false = positions_[step.on_false];
    }
    return {};
  }

 private:
  Target new_label() {
    positions_.push_back(0);
    return static_cast<Target>(positions_.size() - 1);
  }
  void bind(Target label) { positions_[label] = static_cast<Target>(steps_.size()); }

  Status add_filter(const Filter& filter, size_t level, Target on_true, Target on_false) {
    if (level > kNestingMax) {
      return invalid_argument("filter is nested too deeply: at most " +
                              std::to_string(kNestingMax) + " levels");
    }
    const size_t minimum = filter.minimum_should_match.value_or(filter.should.empty() ? 0 : 1);
    if (minimum > filter.should.size()) {
      return invalid_argument(
          path_ + ".minimum_should_match exceeds the number of should clauses: " + "got " +
          std::to_string(minimum) + ", have " + std::to_string(filter.should.size()));
    }
    // The last part that can refuse goes to `on_true` itself, the ones before it to the next part.
    size_t parts_left = filter.must.size() + filter.must_not.size() + (minimum > 0 ? 1 : 0);
    if (parts_left == 0) add_jump(on_true);
    const auto after_part = [&] { return --parts_left == 0 ? on_true : new_label(); };
    const auto bind_part = [&](Target label) {
      if (label != on_true) bind(label);
    };
    for (size_t i = 0; i < filter.must.size(); ++i) {
      const Target next = after_part();
      RETURN_IF_ERROR(add_clause(filter.must[i], ".must", i, level, next, on_false));
      bind_part(next);
    }
    for (size_t i = 0; i < filter.must_not.size(); ++i) {
      const Target next = after_part();
      RETURN_IF_ERROR(add_clause(filter.must_not[i], ".must_not", i, level, on_false, next));
      bind_part(next);
    }
    if (minimum == 0) return check_unused(filter.should, level);
    const Target next = after_part();
    return add_should(filter.should, level, minimum, next, on_false);
  }

  /// Compiles clauses that cannot matter for their errors only.
  Status check_unused(const std::vector<Clause>& should, size_t level) {
    const size_t steps_count = steps_.size();
    const size_t operands_count = operands_.size();
    const Target nowhere = new_label();
    for (size_t i = 0; i < should.size(); ++i) {
      RETURN_IF_ERROR(add_clause(should[i], ".should", i, level, nowhere, nowhere));
    }
    steps_.resize(steps_count);
    operands_.erase(operands_.begin() + static_cast<std::ptrdiff_t>(operands_count),
                    operands_.end());
    return {};
  }

  Status add_should(const std::vector<Clause>& should, size_t level, size_t minimum, Target on_true,
                    Target on_false) {
    if (minimum > 1) {
      const Target begin = new_label();
      Step reset;
      reset.kind = StepKind::kResetCount;
      reset.level = level - 1;
      reset.on_true = begin;
      reset.on_false = begin;
      steps_.push_back(std::move(reset));
      bind(begin);
    }
    for (size_t i = 0; i < should.size(); ++i) {
      const bool last = i + 1 == should.size();
      const Target next = last ? on_false : new_label();
      const Target hit = minimum == 1 ? on_true : new_label();
      RETURN_IF_ERROR(add_clause(should[i], ".should", i, level, hit, next));
      if (minimum > 1) {
        bind(hit);
        Step count;
        count.kind = StepKind::kCount;
        count.level = level - 1;
        count.needed = static_cast<uint32_t>(minimum);
        count.on_true = on_true;
        count.on_false = next;
        steps_.push_back(std::move(count));
      }
      if (!last) bind(next);
    }
    return {};
  }

  Status add_clause(const Clause& clause, std::string_view list, size_t index, size_t level,
                    Target on_true, Target on_false) {
    if (++clauses_count_ > kFilterClausesMax) {
      return invalid_argument("filter has too many clauses: at most " +
                              std::to_string(kFilterClausesMax));
    }
    const size_t path_size = path_.size();
    path_ += list;
    path_ += '[' + std::to_string(index) + ']';
    RETURN_IF_ERROR(clause.nested ? add_filter(*clause.nested, level + 1, on_true, on_false)
                                  : add_test(clause, on_true, on_false));
    path_.resize(path_size);
    return {};
  }

  Status add_test(const Clause& clause, Target on_true, Target on_false) {
    if (is_blank(clause.field)) return invalid_argument(path_ + ".field must not be blank");
    Step step;
    step.field = clause.field;
    step.first_dot = clause.field.find('.');
    step.operands_begin = operands_.size();
    step.on_true = on_true;
    step.on_false = on_false;
    RETURN_IF_ERROR(
        std::visit([&](const auto& test) { return set_test(test, &step); }, clause.test));
    step.operands_count = operands_.size() - step.operands_begin;
    steps_.push_back(std::move(step));
    return {};
  }

  Status set_test(const EqualTo& test, Step* step) {
    const auto wanted = scalar_of(test.value);
    if (!wanted) return never(step);
    step->kind = StepKind::kEquals;
    operands_.emplace_back(*wanted);
    return {};
  }

  Status set_test(const AnyOf& test, Step* step) {
    step->kind = StepKind::kAnyOf;
    for (const Value& value : test.values) {
      if (const auto wanted = scalar_of(value)) operands_.emplace_back(*wanted);
    }
    sort_operands(step->operands_begin);
    return operands_.size() == step->operands_begin ? never(step) : Status();
  }

  Status set_test(const ContainsAll& test, Step* step) {
    if (test.values.size() > kFilterClausesMax) {
      return invalid_argument(path_ + ".contains_all has too many values: at most " +
                              std::to_string(kFilterClausesMax) + ", got " +
                              std::to_string(test.values.size()));
    }
    step->kind = StepKind::kContainsAll;
    for (const Value& value : test.values) {
      const auto wanted = scalar_of(value);
      if (!wanted) return never(step);
      operands_.emplace_back(*wanted);
    }
    sort_operands(step->operands_begin);
    return {};
  }

  Status set_test(const InRange& test, Step* step) {
    step->kind = StepKind::kRange;
    RETURN_IF_ERROR(add_bound(test.gt, BoundKind::kGt, ".gt"));
    RETURN_IF_ERROR(add_bound(test.gte, BoundKind::kGte, ".gte"));
    RETURN_IF_ERROR(add_bound(test.lt, BoundKind::kLt, ".lt"));
    RETURN_IF_ERROR(add_bound(test.lte, BoundKind::kLte, ".lte"));
    if (operands_.size() == step->operands_begin) {
      return invalid_argument(path_ + " needs at least one of gt, gte, lt, lte");
    }
    return {};
  }

  Status set_test(const Exists& test, Step* step) {
    step->kind = StepKind::kExists;
    if (!test.exists) std::swap(step->on_true, step->on_false);
    return {};
  }

  Status set_test(const StartsWith& test, Step* step) {
    step->kind = StepKind::kPrefix;
    operands_.emplace_back(Scalar{ValueTag::kString, 0, test.prefix});
    return {};
  }

  Status add_bound(const std::optional<Value>& value, BoundKind kind, std::string_view name) {
    if (!value) return {};
    const auto bound = scalar_of(*value);
    if (!bound || !is_number(bound->tag)) {
      return invalid_argument(path_ + std::string(name) + " must be a finite number");
    }
    operands_.emplace_back(*bound).bound = kind;
    return {};
  }

  /// Makes `step` a test that no payload passes.
  static Status never(Step* step) {
    step->kind = StepKind::kJump;
    step->on_true = step->on_false;
    return {};
  }

  void add_jump(Target target) {
    Step step;
    step.on_true = target;
    step.on_false = target;
    steps_.push_back(std::move(step));
  }

  /// Sorts the operands from `begin` on and drops equal ones (1 and 1.0 are equal).
  void sort_operands(size_t begin) {
    const auto first = operands_.begin() + static_cast<std::ptrdiff_t>(begin);
    std::sort(first, operands_.end(), [](const Operand& a, const Operand& b) {
      return order_scalars(a.scalar(), b.scalar()) < 0;
    });
    const auto equal = [](const Operand& a, const Operand& b) {
      return order_scalars(a.scalar(), b.scalar()) == 0;
    };
    operands_.erase(std::unique(first, operands_.end(), equal), operands_.end());
  }

  std::vector<Step>& steps_;
  std::vector<Operand>& operands_;
  std::vector<Target> positions_;  // by label
  std::string path_ = "filter";    // of the filter or clause being compiled, for messages
  size_t clauses_count_ = 0;
};

}  // namespace

CompiledFilter::CompiledFilter(std::unique_ptr<Program> program) : program_(std::move(program)) {}
CompiledFilter::CompiledFilter(CompiledFilter&&) noexcept = default;
CompiledFilter& CompiledFilter::operator=(CompiledFilter&&) noexcept = default;
CompiledFilter::~CompiledFilter() = default;

Result<CompiledFilter> CompiledFilter::compile(const Filter& filter) {
  auto program = std::make_unique<Program>();
  RETURN_IF_ERROR(FilterCompiler(&program->steps, &program->operands).compile(filter));
  return CompiledFilter(std::move(program));
}

bool CompiledFilter::matches(Bytes payload) const {
  return program_->matches(payload);
}

}  // namespace aionbd
