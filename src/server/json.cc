#include "server/json.h"

// Errors are values here; without this the library also offers conversions that throw.
#define SIMDJSON_EXCEPTIONS 0
#include <fmt/compile.h>
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <limits>

#include "base/check.h"
#include "server/float_text.h"

namespace aionbd {
namespace {

namespace ondemand = simdjson::ondemand;

static_assert(kJsonPadding >= simdjson::SIMDJSON_PADDING);

ondemand::value& value_at(void* value) {
  return *static_cast<ondemand::value*>(value);
}

/// Opens the library's value to get at its iterator. Numbers are read here straight from the marks
/// that its first stage left; the iterator must then be told where they end, or it would walk over
/// them again (a tenth of all CPU time of an ingest).
struct OpenValue : ondemand::value {
  static ondemand::json_iterator& iterator(ondemand::value& value) {
    return (value.*(&OpenValue::iter)).json_iter();
  }
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// The grammar of RFC 8259, section 6. `integral`: neither fraction nor exponent.
bool is_number_text(std::string_view text, bool& integral) {
  size_t i = 0;
  const auto digits = [&] {
    const size_t from = i;
    while (i < text.size() && is_digit(text[i])) ++i;
    return i - from;
  };
  integral = true;
  if (i < text.size() && text[i] == '-') ++i;
  const size_t first = i;
  const size_t whole = digits();
  if (whole == 0 || (whole > 1 && text[first] == '0')) return false;
  if (i < text.size() && text[i] == '.') {
    integral = false;
    ++i;
    if (digits() == 0) return false;
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    integral = false;
    ++i;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    if (digits() == 0) return false;
  }
  return i == text.size();
}

std::string_view trim_json_blanks(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\r\n").find(text.back()) != std::string_view::npos) {
    text.remove_suffix(1);
  }
  return text;
}

/// What the library's number parser refuses though the text is a number: integers over 64 bits
/// and magnitudes beyond double, which become infinite here. Nothing if it is no number.
bool rare_number(ondemand::value& value, double& out) {
  const std::string_view text = trim_json_blanks(value.raw_json_token());
  bool integral = false;
  if (!is_number_text(text, integral)) return false;
  // strtod, because from_chars does not say on which side it went out of range; it wants a NUL.
  out = std::strtod(std::string(text).c_str(), nullptr);
  return true;
}

}  // namespace

struct JsonReader::State {
  ondemand::parser parser;
  std::vector<std::string_view> keys;  // of the objects being read, innermost last
  size_t capacity = 0;
  std::string_view body;
};

JsonReader::JsonReader() : state_(std::make_unique<State>()) {}
JsonReader::~JsonReader() = default;

size_t JsonReader::capacity() const {
  return state_->capacity;
}

Status JsonReader::read(std::string_view body, JsonValue::FieldVisitor visit) {
  if (body.empty()) return invalid_argument("the body is empty: a JSON object is needed");
  state_->keys.clear();
  state_->capacity = std::max(state_->capacity, body.size());
  state_->body = body;
  ondemand::document document;
  const auto error =
      state_->parser.iterate(body.data(), body.size(), body.size() + simdjson::SIMDJSON_PADDING)
          .get(document);
  if (error == simdjson::UTF8_ERROR) return invalid_argument("the body is not valid UTF-8");
  if (error != simdjson::SUCCESS) return invalid_argument("the body is not valid JSON");
  ondemand::value root;
  if (document.get_value().get(root) != simdjson::SUCCESS) {
    return invalid_argument("the body must be a JSON object");
  }
  JsonValue value(*this, &root, "the body", 0);
  if (value.kind() != JsonKind::kObject) return invalid_argument("the body must be a JSON object");
  RETURN_IF_ERROR(value.read_object(visit));
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS)
    return invalid_argument("the body goes on after its JSON object");
  return {};
}

Status JsonValue::must_be(std::string_view what) const {
  return invalid_argument(fmt::format("{} must be {}", name_, what));
}

Status JsonValue::broken() const {
  return invalid_argument(fmt::format("the body is not valid JSON, at or in {}", name_));
}

JsonKind JsonValue::kind() {
  ondemand::json_type type;
  if (value_at(value_).type().get(type) != simdjson::SUCCESS) return JsonKind::kInvalid;
  switch (type) {
    case ondemand::json_type::array: return JsonKind::kArray;
    case ondemand::json_type::object: return JsonKind::kObject;
    case ondemand::json_type::number: return JsonKind::kNumber;
    case ondemand::json_type::string: return JsonKind::kString;
    case ondemand::json_type::boolean: return JsonKind::kBool;
    case ondemand::json_type::null: return JsonKind::kNull;
  }
  return JsonKind::kInvalid;
}

Status JsonValue::read_object(FieldVisitor visit) {
  std::vector<std::string_view>& keys = reader_.state_->keys;
  const size_t base = keys.size();
  RETURN_IF_ERROR(read_members(visit));
  const auto first = keys.begin() + static_cast<std::ptrdiff_t>(base);
  std::sort(first, keys.end());
  const auto twice = std::adjacent_find(first, keys.end());
  if (twice != keys.end()) {
    return invalid_argument(fmt::format("key \"{}\" comes twice in one object", *twice));
  }
  keys.resize(base);
  return {};
}

Status JsonValue::read_members(FieldVisitor visit) {
  taken_ = true;
  if (depth_ >= kNestingMax) return invalid_argument("the body is nested over 64 levels");
  if (kind() != JsonKind::kObject) return must_be("an object");
  ondemand::object object;
  if (value_at(value_).get_object().get(object) != simdjson::SUCCESS) return broken();
  std::vector<std::string_view>& keys = reader_.state_->keys;
  for (auto item : object) {
    ondemand::field field;
    if (std::move(item).get(field) != simdjson::SUCCESS) return broken();
    std::string_view key;
    if (field.unescaped_key().get(key) != simdjson::SUCCESS) return broken();
    keys.push_back(key);
    ondemand::value value = field.value();
    JsonValue child(reader_, &value, key, depth_ + 1);
    RETURN_IF_ERROR(visit(key, child));
    if (!child.taken_) RETURN_IF_ERROR(child.skip());
  }
  return {};
}

Status JsonValue::read_array(ItemVisitor visit) {
  taken_ = true;
  if (depth_ >= kNestingMax) return invalid_argument("the body is nested over 64 levels");
  if (kind() != JsonKind::kArray) return must_be("an array");
  ondemand::array array;
  if (value_at(value_).get_array().get(array) != simdjson::SUCCESS) return broken();
  for (auto item : array) {
    ondemand::value value;
    if (std::move(item).get(value) != simdjson::SUCCESS) return broken();
    JsonValue child(reader_, &value, name_, depth_ + 1);
    RETURN_IF_ERROR(visit(child));
    if (!child.taken_) RETURN_IF_ERROR(child.skip());
  }
  return {};
}

Result<std::string_view> JsonValue::read_string() {
  taken_ = true;
  if (kind() != JsonKind::kString) return must_be("a string");
  std::string_view text;
  if (value_at(value_).get_string().get(text) != simdjson::SUCCESS) return broken();
  return text;
}

Result<bool> JsonValue::read_bool() {
  taken_ = true;
  bool value = false;
  if (value_at(value_).get_bool().get(value) != simdjson::SUCCESS) return must_be("true or false");
  return value;
}

Result<uint64_t> JsonValue::read_u64() {
  taken_ = true;
  uint64_t value = 0;
  if (value_at(value_).get_uint64().get(value) != simdjson::SUCCESS) {
    return must_be("a whole number from 0 to 2^64-1");
  }
  return value;
}

Result<double> JsonValue::read_double() {
  taken_ = true;
  double value = 0;
  if (kind() != JsonKind::kNumber) return must_be("a number");
  if (value_at(value_).get_double().get(value) != simdjson::SUCCESS) {
    if (!rare_number(value_at(value_), value)) return broken();
  }
  return value;
}

Status JsonValue::read_floats(size_t values_max, bool strict_finite, std::vector<float>& out) {
  taken_ = true;
  if (kind() != JsonKind::kArray) return must_be("an array of numbers");
  // Plain numbers take the short way; the library goes on at the closing bracket.
  ondemand::json_iterator& iterator = OpenValue::iterator(value_at(value_));
  const uint32_t* const marks = iterator.position();
  const std::string_view body = reader_.state_->body;
  DCHECK_EQ(value_at(value_).raw_json_token().data(), body.data() + *marks);
  if (const uint32_t* end = read_plain_floats(body, marks, values_max, out)) {
    const ondemand::depth_t depth = iterator.depth();
    iterator.ascend_to(depth - 1);
    iterator.reenter_child(end, depth);
    return {};
  }
  ondemand::array array;
  if (value_at(value_).get_array().get(array) != simdjson::SUCCESS) return broken();
  const size_t size_max = out.size() + values_max;
  for (auto item : array) {
    ondemand::value value;
    if (std::move(item).get(value) != simdjson::SUCCESS) return broken();
    double number = 0;
    if (value.get_double().get(number) != simdjson::SUCCESS) {
      if (!rare_number(value, number)) return must_be("an array of numbers");
    }
    const float rounded = static_cast<float>(number);
    if (strict_finite && !std::isfinite(rounded)) {
      return must_be("an array of numbers within the range of f32");
    }
    if (out.size() == size_max) {
      return must_be(fmt::format("an array of at most {} numbers", values_max));
    }
    out.push_back(rounded);
  }
  return {};
}

Status JsonValue::read_number(Value& out) {
  taken_ = true;
  const bool negative = value_at(value_).is_negative();
  ondemand::number number;
  if (value_at(value_).get_number().get(number) != simdjson::SUCCESS) {
    double rare = 0;
    if (!rare_number(value_at(value_), rare)) return broken();
    if (!std::isfinite(rare)) return must_be("a number within the range of double");
    out = Value(rare);
  } else if (number.is_uint64()) {
    out = Value(number.get_uint64());
  } else if (number.is_int64()) {
    // "-0" has a sign only a double can keep.
    const bool minus_zero = negative && number.get_int64() == 0;
    out = minus_zero ? Value(-0.0) : Value(number.get_int64());
  } else {
    out = Value(number.get_double());
  }
  return {};
}

Status JsonValue::read_value(Value& out) {
  switch (kind()) {
    case JsonKind::kNull:
    case JsonKind::kInvalid: out = Value(); return skip();
    case JsonKind::kBool: {
      ASSIGN_OR_RETURN(const bool value, read_bool());
      out = Value(value);
      return {};
    }
    case JsonKind::kString: {
      ASSIGN_OR_RETURN(const std::string_view text, read_string());
      out = Value(text);
      return {};
    }
    case JsonKind::kNumber: return read_number(out);
    case JsonKind::kArray: {
      Value::Array array;
      RETURN_IF_ERROR(read_array([&](JsonValue& item) {
        array.emplace_back();
        return item.read_value(array.back());
      }));
      out = Value(std::move(array));
      return {};
    }
    case JsonKind::kObject: {
      Value::Object object;
      RETURN_IF_ERROR(read_object([&](std::string_view key, JsonValue& item) {
        return item.read_value(object[std::string(key)]);
      }));
      out = Value(std::move(object));
      return {};
    }
  }
  return broken();
}

Status JsonValue::skip() {
  switch (kind()) {
    case JsonKind::kObject:
      return read_object([](std::string_view, JsonValue& value) { return value.skip(); });
    case JsonKind::kArray: return read_array([](JsonValue& value) { return value.skip(); });
    case JsonKind::kString: return read_string().status();
    case JsonKind::kBool: return read_bool().status();
    case JsonKind::kNumber: return read_double().status();
    case JsonKind::kNull: {
      taken_ = true;
      bool null = false;
      const bool taken = value_at(value_).is_null().get(null) == simdjson::SUCCESS && null;
      return taken ? Status() : broken();
    }
    case JsonKind::kInvalid: break;
  }
  return broken();
}

// ---- Writing -----------------------------------------------------------------------------------

namespace {

template <typename Float>
void append_float(std::string& out, Float value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  std::array<char, 40> text;
  char* end = fmt::format_to(text.data(), FMT_COMPILE("{}"), value);
  const std::string_view written(text.data(), static_cast<size_t>(end - text.data()));
  out += written;
  if (written.find_first_of(".e") == std::string_view::npos) out += ".0";
}

void append_escaped(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out.push_back('"');
  size_t plain = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out += text.substr(plain, i - plain);
    plain = i + 1;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        out += "\\u00";
        out.push_back(kHex[c >> 4]);
        out.push_back(kHex[c & 15]);
    }
  }
  out += text.substr(plain);
  out.push_back('"');
}

}  // namespace

JsonWriter& JsonWriter::open(char c) {
  separate();
  out_.push_back(c);
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::close(char c) {
  out_.push_back(c);
  comma_ = true;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  append_escaped(out_, name);
  out_.push_back(':');
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::string(std::string_view text) {
  separate();
  append_escaped(out_, text);
  return *this;
}

JsonWriter& JsonWriter::boolean(bool value) {
  separate();
  out_ += value ? "true" : "false";
  return *this;
}

JsonWriter& JsonWriter::number(uint64_t value) {
  separate();
  fmt::format_to(std::back_inserter(out_), FMT_COMPILE("{}"), value);
  return *this;
}

JsonWriter& JsonWriter::number(int64_t value) {
  separate();
  fmt::format_to(std::back_inserter(out_), FMT_COMPILE("{}"), value);
  return *this;
}

JsonWriter& JsonWriter::number(double value) {
  separate();
  append_float(out_, value);
  return *this;
}

JsonWriter& JsonWriter::number(float value) {
  separate();
  append_float(out_, value);
  return *this;
}

JsonWriter& JsonWriter::floats(const std::vector<float>& values) {
  begin_array();
  for (const float value : values) number(value);
  return end_array();
}

JsonWriter& JsonWriter::null() {
  separate();
  out_ += "null";
  return *this;
}

JsonWriter& JsonWriter::value(const Value& value) {
  struct Visitor {
    JsonWriter& writer;
    void operator()(std::nullptr_t) const { writer.null(); }
    void operator()(bool v) const { writer.boolean(v); }
    void operator()(int64_t v) const { writer.number(v); }
    void operator()(uint64_t v) const { writer.number(v); }
    void operator()(double v) const { writer.number(v); }
    void operator()(const std::string& v) const { writer.string(v); }
    void operator()(const Value::Array& v) const {
      writer.begin_array();
      for (const Value& item : v) writer.value(item);
      writer.end_array();
    }
    void operator()(const Value::Object& v) const { writer.object(v); }
  };
  std::visit(Visitor{*this}, value.data());
  return *this;
}

JsonWriter& JsonWriter::object(const Value::Object& object) {
  begin_object();
  for (const auto& [name, member] : object) {
    key(name);
    value(member);
  }
  return end_object();
}

}  // namespace aionbd
