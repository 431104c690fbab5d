// Spelling rows as JSON. This is the client's hot loop: a batch of 256 rows of 784 numbers is
// 200,000 numbers.
//
// Whole numbers (pixels, counts) are printed from integers. An NDJSON line that has just the keys
// of a point is validated and then copied as it is: no number is printed again, so nothing is
// rounded.
#include "cli/row_encoder.h"

#include <fmt/compile.h>
#include <fmt/format.h>
#include <simdjson.h>

#include <array>
#include <cmath>
#include <utility>

namespace aionbd {
namespace {

/// Longest f32 in shortest form is "-1.17549435e-38"; fmt may need a little more on the way.
constexpr size_t kF32CharsMax = 32;
/// Whole numbers below this are exact in f32 and print without an exponent.
constexpr float kWholeMax = 16777216.0F;
/// Levels of a row around its payload.
constexpr size_t kRowNesting = 2;

/// Digits of `value` at `out`; returns the end.
char* print_whole(uint32_t value, char* out) {
  if (value < 10) {
    *out = static_cast<char>('0' + value);
    return out + 1;
  }
  const fmt::format_int digits(value);
  std::copy(digits.data(), digits.data() + digits.size(), out);
  return out + digits.size();
}

/// REQUIRES: room for kF32CharsMax.
char* print_f32(float value, char* out) {
  const float magnitude = std::fabs(value);
  if (magnitude < kWholeMax) {
    const auto whole = static_cast<uint32_t>(magnitude);
    if (static_cast<float>(whole) == magnitude) {
      if (std::signbit(value)) *out++ = '-';
      out = print_whole(whole, out);
      if (whole == 0 && std::signbit(value)) {
        // "-0" would be read as the integer 0.
        *out++ = '.';
        *out++ = '0';
      }
      return out;
    }
  }
  return fmt::format_to(out, FMT_COMPILE("{}"), value);
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

}  // namespace

void append_f32(float value, std::string* out) {
  char digits[kF32CharsMax];
  out->append(digits, static_cast<size_t>(print_f32(value, digits) - digits));
}

void append_json_string(std::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      fmt::format_to(std::back_inserter(*out), "\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

/// The parser and the parts of the row parsed last. Thread safety: single owner.
class RowEncoder::Json {
 public:
  explicit Json(std::string_view id_field) : id_field_(id_field) {}

  Status parse(const RowBatch& batch, const TextRow& row) {
    if (row.too_long) {
      return invalid_argument("the line is longer than " + std::to_string(kLineBytesMax) +
                              " bytes");
    }
    has_payload_ = false;
    bool has_id = false, has_values = false;
    simdjson::dom::element element;
    if (parser_.max_depth() != kNestingMax + kRowNesting || parser_.capacity() < row.size) {
      const size_t capacity = std::max<size_t>(row.size + row.size / 2, size_t{64} << 10);
      if (parser_.allocate(capacity, kNestingMax + kRowNesting) != simdjson::SUCCESS) {
        return resource_exhausted("no memory to parse a line");
      }
    }
    // The batch keeps the padding the parser needs, so the line is not copied.
    const auto error = parser_.parse(batch.text.data() + row.begin, row.size, false).get(element);
    if (error != simdjson::SUCCESS) {
      return invalid_argument(std::string("not valid JSON: ") + simdjson::error_message(error));
    }
    simdjson::dom::object object;
    if (element.get(object) != simdjson::SUCCESS) return invalid_argument("not a JSON object");
    for (const auto field : object) {
      bool* seen = nullptr;
      if (field.key == id_field_) {
        seen = &has_id;
        id_ = field.value;
      } else if (field.key == "values") {
        seen = &has_values;
        values_ = field.value;
      } else if (field.key == "payload") {
        seen = &has_payload_;
        payload_ = field.value;
      } else {
        return invalid_argument("unknown key '" + std::string(field.key.substr(0, 64)) + "'");
      }
      if (std::exchange(*seen, true)) {
        return invalid_argument("the key '" + std::string(field.key) + "' appears twice");
      }
    }
    if (!has_id) return invalid_argument("no '" + std::string(id_field_) + "'");
    if (!has_values || !values_.is_array()) return invalid_argument("no array 'values'");
    return {};
  }

  const simdjson::dom::element& id() const { return id_; }
  const simdjson::dom::element& values() const { return values_; }
  const simdjson::dom::element* payload() const { return has_payload_ ? &payload_ : nullptr; }

 private:
  const std::string_view id_field_;
  simdjson::dom::parser parser_{kLineBytesMax};
  simdjson::dom::element id_, values_, payload_;
  bool has_payload_ = false;
};

RowEncoder::RowEncoder(RowEncoding encoding)
    : encoding_(std::move(encoding)), json_(std::make_unique<Json>(encoding_.id_field)) {}

RowEncoder::~RowEncoder() = default;

Status RowEncoder::append_point(const RowBatch& batch, size_t i, std::string* out) {
  if (batch.dimension > 0) return append_numbers(batch, i, out);
  return append_line(batch, batch.text_rows[i], out);
}

Status RowEncoder::append_numbers(const RowBatch& batch, size_t i, std::string* out) {
  const float* values = batch.values.data() + i * batch.dimension;
  for (size_t d = 0; d < batch.dimension; ++d) {
    if (!std::isfinite(values[d])) {
      return invalid_argument("value " + std::to_string(d) + " is not a finite f32 number");
    }
  }
  uint64_t id = 0;
  if (__builtin_add_overflow(encoding_.start_id, batch.row_of(i), &id)) {
    return invalid_argument("its id would be beyond 2^64 - 1");
  }
  const char* quote = encoding_.id_type == IdType::kString ? "\"" : "";
  fmt::format_to(std::back_inserter(*out), FMT_COMPILE("{{\"id\":{}{}{},\"values\":["), quote, id,
                 quote);
  // Written in place and cut to size after: a push per number would cost more than the digits.
  const size_t begin = out->size();
  out->resize(begin + batch.dimension * (kF32CharsMax + 1));
  char* to = out->data() + begin;
  for (size_t d = 0; d < batch.dimension; ++d) {
    to = print_f32(values[d], to);
    *to++ = ',';
  }
  out->resize(static_cast<size_t>(to - 1 - out->data()));
  out->push_back(']');
  if (!batch.labels.empty()) {
    fmt::format_to(std::back_inserter(*out), FMT_COMPILE(",\"payload\":{{\"label\":{}}}"),
                   batch.labels[i]);
  }
  out->push_back('}');
  return {};
}

Status RowEncoder::append_line(const RowBatch& batch, const TextRow& row, std::string* out) {
  RETURN_IF_ERROR(json_->parse(batch, row));
  if (encoding_.id_field == "id") {
    out->append(trimmed(std::string_view(batch.text).substr(row.begin, row.size)));
    return {};
  }
  out->append("{\"id\":").append(simdjson::minify(json_->id()));
  out->append(",\"values\":").append(simdjson::minify(json_->values()));
  if (const auto* payload = json_->payload()) {
    out->append(",\"payload\":").append(simdjson::minify(*payload));
  }
  out->push_back('}');
  return {};
}

Result<RowShape> RowEncoder::shape_of(const RowBatch& batch, size_t i) {
  if (batch.dimension > 0) return RowShape{batch.dimension, encoding_.id_type};
  RETURN_IF_ERROR(json_->parse(batch, batch.text_rows[i]));
  size_t dim = 0;
  for ([[maybe_unused]] const auto value : simdjson::dom::array(json_->values())) ++dim;
  if (dim == 0 || dim > kDimensionCeiling) {
    return invalid_argument("it has " + std::to_string(dim) + " values");
  }
  return RowShape{static_cast<uint32_t>(dim),
                  json_->id().is_string() ? IdType::kString : IdType::kU64};
}

}  // namespace aionbd
