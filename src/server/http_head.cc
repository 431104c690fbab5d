#include "server/http_head.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"

namespace aionbd {
namespace {

constexpr size_t kRequestIdBytesMax = 128;
/// First byte of a TLS record that starts a handshake: someone speaks TLS to the plain port.
constexpr char kTlsHandshakeByte = 0x16;

bool is_token_char(char c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) return true;
  return std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char);
}

/// RFC 3986: what may stand in an origin-form target, '?' included. '#' may not: a fragment never
/// reaches a server.
bool is_target_char(char c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) return true;
  return std::string_view("-._~!$&'()*+,;=:@/?%").find(c) != std::string_view::npos;
}

bool is_host_char(char c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) return true;
  return std::string_view("-._~!$&'()*+,;=:[]%").find(c) != std::string_view::npos;
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string_view trim_blanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

HttpFault bad(std::string message) {
  return HttpFault{400, "invalid_argument", std::move(message), false};
}

HttpFault too_large(std::string message) {
  return HttpFault{431, "headers_too_large", std::move(message), false};
}

HttpMethod method_of(std::string_view text) {
  if (text == "GET") return HttpMethod::kGet;
  if (text == "HEAD") return HttpMethod::kHead;
  if (text == "POST") return HttpMethod::kPost;
  if (text == "PUT") return HttpMethod::kPut;
  if (text == "DELETE") return HttpMethod::kDelete;
  return HttpMethod::kOther;
}

/// Splits a target into path and query. An absolute-form target (RFC 9112 says servers must take
/// it) loses its scheme and authority.
std::optional<HttpFault> parse_target(std::string_view target, HttpHead& head) {
  if (!std::all_of(target.begin(), target.end(), is_target_char)) {
    return bad("the request target holds a character that must be percent-encoded");
  }
  if (target.front() != '/' && target.size() > 7 &&
      equals_ignoring_case(target.substr(0, 7), "http://")) {
    const size_t slash = target.find('/', 7);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  const size_t mark = target.find('?');
  head.path = target.substr(0, mark);
  head.query = mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
  // "*" and authority-form belong to methods no route has; the router says 405.
  if (head.path.front() != '/' && head.method != HttpMethod::kOther) {
    return bad("the request target must start with '/'");
  }
  return std::nullopt;
}

std::optional<HttpFault> parse_request_line(std::string_view line, HttpHead& head) {
  const size_t first = line.find(' ');
  const size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  if (second == std::string_view::npos) return bad("the request line has no version");
  head.method_text = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, second - first - 1);
  const std::string_view version = line.substr(second + 1);
  if (!is_token(head.method_text)) return bad("the method is not a token");
  if (target.empty()) return bad("the request target is empty");
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    return bad("this port speaks HTTP/1.1 and HTTP/1.0 only");
  }
  head.version_minor = version.back() - '0';
  head.method = method_of(head.method_text);
  return parse_target(target, head);
}

/// Digits only, at most 2^63 - 1; no sign, no list, no blank beyond the customary one.
std::optional<uint64_t> parse_content_length(std::string_view raw) {
  if (!raw.empty() && raw.front() == ' ') raw.remove_prefix(1);
  if (raw.empty() || raw.size() > 19) return std::nullopt;
  uint64_t value = 0;
  for (const char c : raw) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');  // 19 digits fit u64
  }
  if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return value;
}

/// Calls `on_token` for each element of a comma list.
template <typename F>
void for_each_token(std::string_view list, const F& on_token) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    on_token(trim_blanks(list.substr(0, comma)));
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

/// What the fields seen so far said about framing.
struct Framing {
  int hosts = 0;
  int content_lengths = 0;
  int transfer_encodings = 0;
  int content_types = 0;
  bool close = false;
  bool keep_alive = false;
};

std::optional<HttpFault> apply_field(const HttpField& field, std::string_view raw, HttpHead& head,
                                     Framing& framing) {
  const std::string_view name = field.name;
  if (equals_ignoring_case(name, "content-length")) {
    ++framing.content_lengths;
    head.content_length = parse_content_length(raw);
    if (!head.content_length) return bad("content-length is not a plain decimal number");
  } else if (equals_ignoring_case(name, "transfer-encoding")) {
    ++framing.transfer_encodings;
    if (!raw.empty() && raw.front() == ' ') raw.remove_prefix(1);
    if (!equals_ignoring_case(raw, "chunked")) return bad("transfer-encoding must be chunked");
    head.chunked = true;
  } else if (equals_ignoring_case(name, "host")) {
    ++framing.hosts;
    if (!std::all_of(field.value.begin(), field.value.end(), is_host_char)) {
      return bad("host holds a character no host name has");
    }
  } else if (equals_ignoring_case(name, "connection")) {
    bool tokens = true;
    for_each_token(field.value, [&](std::string_view token) {
      if (!token.empty() && !is_token(token)) tokens = false;
      if (equals_ignoring_case(token, "close")) framing.close = true;
      if (equals_ignoring_case(token, "keep-alive")) framing.keep_alive = true;
    });
    if (!tokens) return bad("connection is not a list of tokens");
  } else if (equals_ignoring_case(name, "expect")) {
    if (!equals_ignoring_case(field.value, "100-continue")) {
      return bad("expect knows 100-continue only");
    }
    head.expect_continue = true;
  } else if (equals_ignoring_case(name, "content-encoding")) {
    if (!equals_ignoring_case(field.value, "identity")) {
      return bad("content-encoding is not supported: send the body as it is");
    }
  } else if (equals_ignoring_case(name, "content-type")) {
    ++framing.content_types;
  }
  return std::nullopt;
}

std::optional<HttpFault> check_framing(const Framing& framing, HttpHead& head) {
  if (framing.content_lengths > 1) return bad("more than one content-length");
  if (framing.transfer_encodings > 1) return bad("more than one transfer-encoding");
  if (framing.content_types > 1) return bad("more than one content-type");
  if (framing.content_lengths > 0 && framing.transfer_encodings > 0) {
    return bad("content-length and transfer-encoding exclude each other");
  }
  if (head.chunked && head.version_minor == 0) return bad("HTTP/1.0 has no transfer-encoding");
  if (framing.hosts > 1) return bad("more than one host");
  if (framing.hosts == 0 && head.version_minor == 1) return bad("host is missing");
  head.keep_alive = !framing.close && (head.version_minor == 1 || framing.keep_alive);
  if (head.version_minor == 0) head.expect_continue = false;
  return std::nullopt;
}

bool is_field_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u == '\t' || (u >= 0x20 && u != 0x7f);
  });
}

}  // namespace

const std::string_view* HttpHead::find(std::string_view lower_name) const {
  for (const HttpField& field : fields) {
    if (equals_ignoring_case(field.name, lower_name)) return &field.value;
  }
  return nullptr;
}

bool equals_ignoring_case(std::string_view text, std::string_view lower_text) {
  if (text.size() != lower_text.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (lower(text[i]) != lower_text[i]) return false;
  }
  return true;
}

HeadScan scan_head(std::string_view text, size_t scanned) {
  HeadScan scan;
  if (text.empty()) return scan;
  if (text.front() == kTlsHandshakeByte) {
    scan.fault = HttpFault{400, "invalid_argument", "TLS on a plain port", true};
    return scan;
  }
  // One empty line before a request line is ignored (RFC 9112, 2.2): old clients end a body so.
  if (text.front() == '\r') {
    if (text.size() < 2) return scan;
    if (text[1] == '\n') scan.begin = 2;
  }
  // Three bytes back: the end mark may straddle what was seen and what is new.
  const size_t from = std::max(scan.begin, scanned > 3 ? scanned - 3 : 0);
  for (size_t i = from; i < text.size() && i - scan.begin < kHeadBytesMax; ++i) {
    const char c = text[i];
    if (c == '\0') {
      scan.fault = bad("the head holds a NUL byte");
      return scan;
    }
    if (c == '\n' && (i == scan.begin || text[i - 1] != '\r')) {
      scan.fault = bad("a line of the head ends without CR");
      return scan;
    }
    if (c == '\r' && i + 1 < text.size() && text[i + 1] != '\n') {
      scan.fault = bad("the head holds a CR without LF");
      return scan;
    }
    if (c == '\n' && i >= scan.begin + 3 && text[i - 2] == '\n') {
      scan.end = i + 1;
      return scan;
    }
  }
  if (text.size() - scan.begin >= kHeadBytesMax) {
    scan.fault = too_large("the request head is over 16384 bytes");
  }
  return scan;
}

std::optional<HttpFault> parse_head(std::string_view text, HttpHead& head) {
  head = HttpHead{};
  head.fields.reserve(16);
  Framing framing;
  bool first = true;
  while (true) {
    const size_t end = text.find("\r\n");
    if (end == std::string_view::npos) return bad("the head has no end");
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 2);
    if (line.size() > kHeadLineBytesMax) return too_large("a line of the head is over 8192 bytes");
    if (first) {
      first = false;
      if (!is_field_value(line) || line.find('\t') != std::string_view::npos) {
        return bad("the request line holds a control character");
      }
      if (auto fault = parse_request_line(line, head)) return fault;
      continue;
    }
    if (line.empty()) break;
    if (head.fields.size() == kHeadFieldsMax) return too_large("the head has over 100 fields");
    const size_t colon = line.find(':');
    const std::string_view name = line.substr(0, colon);
    // This refuses folded lines and blanks before the colon too: a blank is no token character.
    if (colon == std::string_view::npos || !is_token(name))
      return bad("a field name is not a token");
    const std::string_view raw = line.substr(colon + 1);
    if (!is_field_value(raw)) return bad("a field value holds a control character");
    head.fields.push_back(HttpField{name, trim_blanks(raw)});
    if (auto fault = apply_field(head.fields.back(), raw, head, framing)) return fault;
  }
  if (!text.empty()) return bad("bytes after the head");
  return check_framing(framing, head);
}

ChunkDecoder::Progress ChunkDecoder::feed(std::string_view in, uint64_t body_bytes_max,
                                          size_t& used, std::string_view& data) {
  used = 0;
  data = {};
  while (used < in.size()) {
    if (state_ == State::kData) {
      const size_t take = static_cast<size_t>(std::min<uint64_t>(chunk_bytes_, in.size() - used));
      data = in.substr(used, take);
      used += take;
      chunk_bytes_ -= take;
      if (chunk_bytes_ == 0) state_ = State::kDataCr;
      return Progress::kMore;
    }
    const Progress progress = step(in[used], body_bytes_max);
    ++used;
    if (progress != Progress::kMore) return progress;
  }
  return Progress::kMore;
}

ChunkDecoder::Progress ChunkDecoder::step(char c, uint64_t body_bytes_max) {
  switch (state_) {
    case State::kSize: {
      const int digit = hex_digit(c);
      if (digit >= 0) {
        if (++digits_ > 16) return bad("a chunk size has over 16 digits");
        chunk_bytes_ = chunk_bytes_ * 16 + static_cast<uint64_t>(digit);
        return Progress::kMore;
      }
      if (digits_ == 0) return bad("a chunk size is not a hexadecimal number");
      if (c == '\r') {
        state_ = State::kSizeLf;
      } else if (c == ';') {
        state_ = State::kExtension;
      } else {
        return bad("a chunk size is not a hexadecimal number");
      }
      return Progress::kMore;
    }
    case State::kExtension:
      if (c == '\r') {
        state_ = State::kSizeLf;
        return Progress::kMore;
      }
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        return bad("a chunk extension holds a control character");
      }
      if (++extension_bytes_ > kChunkExtensionBytesMax) {
        return bad("the extensions of a chunk are over 256 bytes");
      }
      return Progress::kMore;
    case State::kSizeLf:
      if (c != '\n') return bad("a chunk size line ends without LF");
      if (chunk_bytes_ > body_bytes_max - std::min(total_bytes_, body_bytes_max)) {
        return Progress::kTooLarge;
      }
      return size_line_done();
    case State::kDataCr:
      if (c != '\r') return bad("chunk data is not followed by CRLF");
      state_ = State::kDataLf;
      return Progress::kMore;
    case State::kDataLf:
      if (c != '\n') return bad("chunk data is not followed by CRLF");
      state_ = State::kSize;
      digits_ = 0;
      extension_bytes_ = 0;
      return Progress::kMore;
    case State::kTrailer: return trailer_byte(c);
    case State::kData:
    case State::kDone: break;
  }
  return bad("bytes after the last chunk");
}

ChunkDecoder::Progress ChunkDecoder::size_line_done() {
  if (chunk_bytes_ == 0) {
    state_ = State::kTrailer;
    return Progress::kMore;
  }
  total_bytes_ += chunk_bytes_;
  state_ = State::kData;
  return Progress::kMore;
}

/// Trailers are checked like fields and then forgotten; one that would change the framing or the
/// caller's identity is an attack.
ChunkDecoder::Progress ChunkDecoder::trailer_byte(char c) {
  if (++trailer_bytes_ > kTrailerBytesMax) return bad("the trailers are over 8192 bytes");
  if (!trailer_line_.empty() && trailer_line_.back() == '\r') {
    if (c != '\n') return bad("a trailer holds a CR without LF");
    trailer_line_.pop_back();
    if (trailer_line_.empty()) {
      state_ = State::kDone;
      return Progress::kDone;
    }
    const size_t colon = trailer_line_.find(':');
    const std::string_view line = trailer_line_;
    const std::string_view name = line.substr(0, colon);
    if (colon == std::string_view::npos || !is_token(name) || !is_field_value(line)) {
      return bad("a trailer is not a field");
    }
    for (const std::string_view forbidden :
         {"content-length", "transfer-encoding", "host", "authorization", "x-api-key",
          "content-encoding", "content-type", "trailer", "connection"}) {
      if (equals_ignoring_case(name, forbidden)) return bad("a trailer names a field of the head");
    }
    trailer_line_.clear();
    return Progress::kMore;
  }
  if (c == '\n') return bad("a trailer ends without CR");
  trailer_line_.push_back(c);
  return Progress::kMore;
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      if (text.size() - i < 3) return std::nullopt;
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      out.push_back(static_cast<char>(high * 16 + low));
      i += 2;
    } else if (text[i] == '+' && plus_is_space) {
      out.push_back(' ');
    } else {
      out.push_back(text[i]);
    }
  }
  if (!is_utf8(out)) return std::nullopt;
  return out;
}

std::optional<std::vector<std::pair<std::string, std::string>>> parse_query(std::string_view query,
                                                                            std::string& problem) {
  std::vector<std::pair<std::string, std::string>> out;
  while (!query.empty()) {
    const size_t ampersand = query.find('&');
    const std::string_view part = query.substr(0, ampersand);
    query.remove_prefix(ampersand == std::string_view::npos ? query.size() : ampersand + 1);
    if (part.empty()) continue;
    const size_t equals = part.find('=');
    auto key = percent_decode(part.substr(0, equals), true);
    auto value = equals == std::string_view::npos ? std::optional<std::string>("")
                                                  : percent_decode(part.substr(equals + 1), true);
    if (!key || !value) {
      problem = "the query is not percent-encoded UTF-8";
      return std::nullopt;
    }
    out.emplace_back(std::move(*key), std::move(*value));
  }
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : out) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  if (std::adjacent_find(keys.begin(), keys.end()) != keys.end()) {
    problem = "the query names a key twice";
    return std::nullopt;
  }
  return out;
}

bool is_sane_request_id(std::string_view text) {
  if (text.empty() || text.size() > kRequestIdBytesMax) return false;
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

}  // namespace aionbd
