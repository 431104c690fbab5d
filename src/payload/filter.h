// A public filter compiled to a small flat program over encoded payloads.
//
// Evaluation uses no recursion and no allocation: the program is a list of field tests with
// two jump targets each (true / false), the way a short-circuit compiler emits them; only
// minimum_should_match needs a counter per nesting level.
#pragma once

#include <memory>

#include "aionbd/filter.h"
#include "aionbd/status.h"
#include "base/bytes.h"

namespace aionbd {

class FieldIndex;
struct IndexAnswer;
struct CountBounds;

/// Semantics beyond include/aionbd/filter.h:
/// - A dotted path is resolved object by object: first the whole remaining path as one key; if that
///   key is absent, the part before the first dot as a key, and the rest in its value if that is an
///   object. There is no going back, and no stepping into arrays: a path through an array of
///   objects finds nothing.
/// - Numbers are compared by exact value, never converted: 2^53 + 1 differs from 2^53 as a double.
///   0.0 equals -0.0. A wanted value that no stored element can equal (object, array, non-finite
///   number) matches nothing.
/// - Elements of an array inside an array are not looked at.
/// - minimum_should_match 0 makes `should` optional; without any `should` only 0 is allowed.
/// Thread safety: immutable.
class CompiledFilter {
 public:
  /// Errors: invalid_argument (nesting beyond kNestingMax, the outermost filter being level 1; more
  /// than kFilterClausesMax clauses in all, or values of one ContainsAll; blank field;
  /// minimum_should_match above the number of should clauses; a range without a bound or with a
  /// bound that is not a finite number), naming the clause: "filter.must[2].gt must be a finite
  /// number".
  static Result<CompiledFilter> compile(const Filter& filter);
  CompiledFilter(CompiledFilter&&) noexcept;
  CompiledFilter& operator=(CompiledFilter&&) noexcept;
  ~CompiledFilter();

  /// REQUIRES: check_payload(payload).ok().
  /// Cost: per clause tried, one walk over the keys of each object on its path, and one look at
  /// each element of the field (times log of the values wanted); about 20 ns for one equality among
  /// three fields.
  bool matches(Bytes payload) const;

  /// The rows that match, as far as the index of their segment knows (payload/field_index.h). A
  /// clause on a field without an index leaves open which rows it holds for; the answer then is an
  /// upper bound, and `matches` on the payloads of its rows decides.
  /// Cost: per clause, the bytes of the postings it names; plus one set operation over the segment.
  IndexAnswer evaluate(const FieldIndex& index) const;

  /// Bounds of the number of rows that match, from the sizes of postings alone: no set is made.
  /// Not as tight as the answer's count: of two clauses it cannot know how far they overlap.
  /// Cost: per clause, a few binary searches for each value wanted.
  CountBounds estimate(const FieldIndex& index) const;

 private:
  struct Program;
  explicit CompiledFilter(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace aionbd
