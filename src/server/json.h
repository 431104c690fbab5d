// Reading and writing JSON text. The only file pair that knows the JSON library (simdjson).
//
// Reading is a pull over one body: every value must be taken exactly once, in order, and what the
// caller does not take is still checked, because simdjson's On-Demand parser looks only at what it
// is asked for: a lazy reader would accept garbage in a field it ignores. So the whole body is
// either valid JSON of at most kNestingMax levels or an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"

namespace aionbd {

/// Readable bytes a body must have behind its end (their content does not matter): the SIMD code
/// reads whole registers.
inline constexpr size_t kJsonPadding = 64;

/// A borrowed callable: valid only during the call it is passed to.
template <typename Signature>
class FunctionRef;
template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>) FunctionRef(F&& callable)
      : object_(const_cast<void*>(static_cast<const void*>(&callable))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

enum class JsonKind : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject, kInvalid };

class JsonReader;

/// One value of a body that is being read. Lives during a visit only; taken at most once.
/// Errors of every call: invalid_argument, naming the field.
/// Thread safety: single owner.
class JsonValue {
 public:
  using FieldVisitor = FunctionRef<Status(std::string_view key, JsonValue& value)>;
  using ItemVisitor = FunctionRef<Status(JsonValue& value)>;

  JsonKind kind();
  /// The field's key, or that of the array this is an item of.
  std::string_view name() const { return name_; }

  /// Visits the fields in order. A key that comes twice is an error.
  Status read_object(FieldVisitor visit);
  Status read_array(ItemVisitor visit);
  /// The view lives until the next body is read.
  Result<std::string_view> read_string();
  Result<bool> read_bool();
  /// Digits only: no sign, no fraction, no exponent.
  Result<uint64_t> read_u64();
  Result<double> read_double();
  /// Appends an array of numbers to `out`, each rounded to f32.
  ///
  ///   values_max     more is an error
  ///   strict_finite  a number beyond f32 is an error; else it becomes an infinity
  Status read_floats(size_t values_max, bool strict_finite, std::vector<float>& out);
  /// Any value, for payloads.
  Status read_value(Value& out);
  /// Checks the value and forgets it.
  Status skip();

  /// "limit must be a whole number"
  Status must_be(std::string_view what) const;

 private:
  friend class JsonReader;
  JsonValue(JsonReader& reader, void* value, std::string_view name, size_t depth)
      : reader_(reader), value_(value), name_(name), depth_(depth) {}

  Status read_members(FieldVisitor visit);
  Status read_number(Value& out);
  Status broken() const;

  JsonReader& reader_;
  void* value_;  // the library's value, on the stack of whoever visits
  std::string_view name_;
  size_t depth_;
  bool taken_ = false;
};

/// Keeps the buffers of the parser between bodies. Thread safety: single owner.
class JsonReader {
 public:
  JsonReader();
  ~JsonReader();
  JsonReader(const JsonReader&) = delete;
  JsonReader& operator=(const JsonReader&) = delete;

  /// Reads `body`, which must be one JSON object and nothing else.
  /// REQUIRES: kJsonPadding readable bytes behind the body. Cost: one pass.
  Status read(std::string_view body, JsonValue::FieldVisitor visit);

  /// Largest body the buffers have grown to.
  size_t capacity() const;

 private:
  friend class JsonValue;
  struct State;
  std::unique_ptr<State> state_;
};

/// Appends JSON text to a string; commas come by themselves. Thread safety: single owner.
class JsonWriter {
 public:
  explicit JsonWriter(std::string& out) : out_(out) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);
  JsonWriter& string(std::string_view text);
  JsonWriter& boolean(bool value);
  JsonWriter& number(uint64_t value);
  JsonWriter& number(int64_t value);
  /// Shortest text that reads back to the same bits, with ".0" if it has no fraction or exponent:
  /// so a typed client reads a float back. Non-finite: null.
  JsonWriter& number(double value);
  JsonWriter& number(float value);
  JsonWriter& floats(const std::vector<float>& values);
  JsonWriter& null();
  JsonWriter& value(const Value& value);
  JsonWriter& object(const Value::Object& object);

 private:
  JsonWriter& open(char c);
  JsonWriter& close(char c);
  void separate() {
    if (comma_) out_.push_back(',');
    comma_ = true;
  }

  std::string& out_;
  bool comma_ = false;
};

}  // namespace aionbd
