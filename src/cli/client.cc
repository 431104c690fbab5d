// The HTTP client over Boost.Beast. Each operation runs on the connection's own event loop until it
// or its deadline is over, so the interface is synchronous and still cannot hang.
#include "cli/client.h"

#include <simdjson.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/version.hpp>
#include <charconv>
#include <thread>
#include <utility>

namespace aionbd {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

/// A page of export at the server's largest limits, with room.
constexpr uint64_t kResponseBytesMax = uint64_t{1} << 30;
constexpr uint32_t kResponseHeadBytesMax = 64U << 10;
constexpr std::chrono::milliseconds kPauseMin{50};
constexpr std::chrono::milliseconds kPauseMax{5000};
/// A server may ask for patience, not for ever.
constexpr std::chrono::seconds kRetryAfterMax{60};
/// How often a pause looks at the stop flag.
constexpr std::chrono::milliseconds kStopPoll{50};

Code code_of_status(unsigned status) {
  switch (status) {
    case 400:
    case 405:
    case 413:
    case 431: return Code::kInvalidArgument;
    case 401: return Code::kUnauthenticated;
    case 403: return Code::kPermissionDenied;
    case 404: return Code::kNotFound;
    case 408: return Code::kDeadlineExceeded;
    case 409: return Code::kAlreadyExists;
    case 429: return Code::kResourceExhausted;
    case 502:
    case 503:
    case 504: return Code::kUnavailable;
    case 507: return Code::kStorageFull;
    default: return status >= 500 ? Code::kInternal : Code::kInvalidArgument;
  }
}

/// The "message" of an error body, or its beginning when it is something else.
std::string message_of(const ServerResponse& response) {
  simdjson::dom::parser parser;
  std::string_view message;
  if (parser.parse(response.body)["message"].get(message) == simdjson::SUCCESS) {
    return std::string(message);
  }
  constexpr size_t kExcerptBytes = 200;
  return "HTTP status " + std::to_string(response.status) +
         (response.body.empty() ? "" : ": " + response.body.substr(0, kExcerptBytes));
}

/// Sleeps; returns early, and false, when `*stop` becomes true.
bool pause_for(std::chrono::milliseconds time, const std::atomic<bool>* stop) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (true) {
    if (stop != nullptr && stop->load(std::memory_order_relaxed)) return false;
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) return true;
    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(left, kStopPoll));
  }
}

}  // namespace

std::string ServerUrl::authority() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + port;
}

Result<ServerUrl> parse_server_url(std::string_view text) {
  const Status bad = invalid_argument("bad server address '" + std::string(text.substr(0, 200)) +
                                      "': want http://host:port");
  if (text.starts_with("https://")) {
    return invalid_argument("https:// is not supported by this command; use a local plain port");
  }
  if (!text.starts_with("http://")) return bad;
  std::string_view rest = text.substr(7);
  ServerUrl url;
  url.port = "80";
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos) {
    url.prefix = rest.substr(slash);
    while (url.prefix.ends_with('/')) url.prefix.pop_back();
    rest = rest.substr(0, slash);
  }
  if (rest.starts_with('[')) {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos) return bad;
    url.host = rest.substr(1, close - 1);
    rest = rest.substr(close + 1);
    if (!rest.empty() && rest[0] != ':') return bad;
    if (!rest.empty()) url.port = rest.substr(1);
  } else {
    const size_t colon = rest.find(':');
    url.host = rest.substr(0, colon);
    if (colon != std::string_view::npos) url.port = rest.substr(colon + 1);
  }
  uint16_t number = 0;
  const char* end = url.port.data() + url.port.size();
  const auto parsed = std::from_chars(url.port.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end || number == 0) return bad;
  for (const char c : url.host + url.prefix) {
    // What would end the request line or a header field must not get into them.
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7F || c == '@' || c == '?' || c == '#') {
      return bad;
    }
  }
  if (url.host.empty()) return bad;
  return url;
}

Status status_of(const ServerResponse& response) {
  if (response.status >= 200 && response.status < 300) return {};
  return Status(code_of_status(response.status), message_of(response));
}

bool is_retryable(const ServerResponse& response) {
  switch (response.status) {
    case 408:
    case 429:
    case 502:
    case 503:
    case 504:
    case 507: return true;
    default: return false;
  }
}

/// Thread safety: single owner.
class HttpClient::Connection {
 public:
  explicit Connection(const ClientOptions& options) : options_(options), stream_(loop_) {}

  bool is_open() const { return open_; }

  Status connect() {
    error_code error;
    asio::ip::tcp::resolver resolver(loop_);
    const auto endpoints = resolver.resolve(options_.url.host, options_.url.port, error);
    if (error) return failed("cannot find", error);
    stream_.expires_after(options_.connect_timeout);
    stream_.async_connect(endpoints,
                          [&error](error_code e, const asio::ip::tcp::endpoint&) { error = e; });
    run();
    if (error) return failed("cannot connect to", error);
    stream_.socket().set_option(asio::ip::tcp::no_delay(true), error);
    open_ = true;
    return {};
  }

  /// Sends and reads. `*was_closed` tells whether the other side had closed the connection and sent
  /// no byte of an answer. A timeout is not that: the request may be under way.
  Result<ServerResponse> exchange(http::verb method, std::string_view target, std::string_view body,
                                  bool* was_closed) {
    *was_closed = false;
    http::request<http::span_body<const char>> request{
        method, options_.url.prefix + std::string(target), 11};
    request.set(http::field::host, options_.url.authority());
    request.set(http::field::user_agent, "aionbd-cli");
    if (!options_.api_key.empty()) request.set("x-api-key", options_.api_key);
    if (!options_.bearer_token.empty()) {
      request.set(http::field::authorization, "Bearer " + options_.bearer_token);
    }
    if (!body.empty()) request.set(http::field::content_type, "application/json");
    request.body() = {body.data(), body.size()};
    if (!body.empty() || method == http::verb::post || method == http::verb::put) {
      request.content_length(body.size());
    }

    error_code write_error;
    stream_.expires_after(options_.timeout);
    http::async_write(stream_, request, [&write_error](error_code e, size_t) { write_error = e; });
    run();
    // A server that refuses a body answers and stops reading: the write fails, yet the answer may
    // be waiting in the socket.
    http::response_parser<http::string_body> parser;
    parser.body_limit(kResponseBytesMax);
    parser.header_limit(kResponseHeadBytesMax);
    error_code read_error;
    if (write_error != beast::error::timeout) {
      http::async_read(stream_, buffer_, parser,
                       [&read_error](error_code e, size_t) { read_error = e; });
      run();
      *was_closed = read_error && read_error != beast::error::timeout && !parser.got_some();
    }
    if (write_error || read_error || !parser.keep_alive()) close();
    if (read_error) return failed("no answer from", write_error ? write_error : read_error);
    if (!parser.is_done()) return failed("cannot send to", write_error);
    return to_response(parser.release());
  }

 private:
  static ServerResponse to_response(http::response<http::string_body> message) {
    ServerResponse response;
    response.status = message.result_int();
    const std::string_view after = message[http::field::retry_after];
    unsigned seconds = 0;
    const auto parsed = std::from_chars(after.data(), after.data() + after.size(), seconds);
    if (!after.empty() && parsed.ec == std::errc()) {
      response.retry_after = std::min(std::chrono::seconds(seconds), kRetryAfterMax);
    }
    response.body = std::move(message.body());
    return response;
  }

  void run() {
    loop_.restart();
    loop_.run();
  }
  void close() {
    error_code ignored;
    stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
    stream_.close();
    buffer_.clear();
    open_ = false;
  }
  Status failed(std::string_view what, error_code error) {
    close();
    return unavailable(std::string(what) + " " + options_.url.authority() + ": " + error.message());
  }

  const ClientOptions& options_;
  asio::io_context loop_{1};
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  bool open_ = false;
};

HttpClient::HttpClient(ClientOptions options)
    : options_(std::move(options)),
      connection_(std::make_unique<Connection>(options_)),
      rng_(entropy_seed()) {}

HttpClient::~HttpClient() = default;

Result<ServerResponse> HttpClient::request(std::string_view method, std::string_view target,
                                           std::string_view body) {
  const http::verb verb = http::string_to_verb(method);
  if (verb == http::verb::unknown) return internal_error("unknown HTTP method");
  const bool reused = connection_->is_open();
  if (!reused) RETURN_IF_ERROR(connection_->connect());
  bool was_closed = false;
  auto response = connection_->exchange(verb, target, body, &was_closed);
  if (response.has_value() || !reused || !was_closed) return response;
  // A kept connection may have been closed by the server since its last use; a fresh one tells.
  RETURN_IF_ERROR(connection_->connect());
  return connection_->exchange(verb, target, body, &was_closed);
}

Result<ServerResponse> HttpClient::call(std::string_view method, std::string_view target,
                                        std::string_view body, const std::atomic<bool>* stop) {
  const auto give_up = std::chrono::steady_clock::now() + options_.retry_for;
  std::chrono::milliseconds pause = kPauseMin;
  while (true) {
    auto response = request(method, target, body);
    if (response.has_value() && !is_retryable(*response)) return response;
    if (!response.has_value() && response.error().code() != Code::kUnavailable) return response;
    // Half to one and a half of the pause: clients stopped by one event do not return as one.
    auto wait = std::chrono::milliseconds(
        static_cast<int64_t>(static_cast<double>(pause.count()) * (0.5 + rng_.uniform())));
    if (response.has_value() && response->retry_after) {
      wait = std::max<std::chrono::milliseconds>(wait, *response->retry_after);
    }
    if (std::chrono::steady_clock::now() + wait >= give_up) return response;
    if (!pause_for(wait, stop)) return response;
    pause = std::min(pause * 2, kPauseMax);
    ++retries_;
  }
}

std::string url_encoded(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

}  // namespace aionbd
