// Boost.Beast's parser as a second opinion, for tests and the fuzzer: a head that http_head.cc
// accepts must mean the same to it. Two parsers that disagree are how requests are smuggled.
#pragma once

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http_head.h"

namespace aionbd {

/// What differs between `head` (accepted, parsed from `text`) and Beast's reading; empty if
/// nothing.
inline std::string beast_disagrees(std::string_view text, const HttpHead& head) {
  namespace http = boost::beast::http;
  // Beast insists on lists in these two; they mean nothing to us and we ignore them.
  if (head.find("upgrade") != nullptr || head.find("proxy-connection") != nullptr) return {};
  http::request_parser<http::empty_body> parser;
  parser.header_limit(64 * 1024);
  parser.body_limit(boost::none);
  parser.skip(true);
  boost::system::error_code error;
  parser.put(boost::asio::buffer(text.data(), text.size()), error);
  if (error) return "refused: " + error.message();
  if (!parser.is_header_done()) return "head not complete";
  const auto& message = parser.get();
  const auto view = [](auto v) { return std::string_view(v.data(), v.size()); };
  if (view(message.method_string()) != head.method_text) return "method";
  std::string target(head.path);
  if (!head.query.empty()) target.append("?").append(head.query);
  std::string theirs(view(message.target()));
  if (!theirs.empty() && theirs.back() == '?' && head.query.empty()) theirs.pop_back();
  if (theirs.size() < target.size() || theirs.substr(theirs.size() - target.size()) != target) {
    // "http://host" without a path is "/" to us.
    if (target != "/") return "target";
  }
  if (message.version() != 10U + static_cast<unsigned>(head.version_minor)) return "version";
  if (parser.chunked() != head.chunked) return "chunked";
  if (parser.content_length().has_value() != head.content_length.has_value()) return "length";
  if (head.content_length && *parser.content_length() != *head.content_length) return "length";
  if (parser.keep_alive() != head.keep_alive) return "keep-alive";
  // Beast keeps fields of one name together, so the order is not compared.
  std::vector<std::pair<std::string, std::string>> ours_sorted, theirs_sorted;
  for (const HttpField& field : head.fields) ours_sorted.emplace_back(field.name, field.value);
  for (const auto& field : message) {
    theirs_sorted.emplace_back(view(field.name_string()), view(field.value()));
  }
  std::sort(ours_sorted.begin(), ours_sorted.end());
  std::sort(theirs_sorted.begin(), theirs_sorted.end());
  return ours_sorted == theirs_sorted ? "" : "fields";
}

}  // namespace aionbd
