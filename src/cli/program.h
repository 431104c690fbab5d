// The command line as a whole: table of commands, help, parsing, dispatch.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace aionbd {

/// Runs the program with the arguments after its name; returns the exit code.
int run_program(std::vector<std::string> arguments);

/// The names of the commands most like `word`, best first; empty when none is near. For "did you
/// mean".
std::vector<std::string_view> near_commands(std::string_view word);

}  // namespace aionbd
