# Compiler settings and the two functions that every folder uses.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_C_STANDARD_REQUIRED ON)
if(NOT CMAKE_BUILD_TYPE)
	set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
# assert stays on in release: it is for bugs, and a cache that goes on after one serves wrong bytes.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g")

set(GRANARY_SANITIZE "" CACHE STRING "Sanitizers for our own code: address,undefined or thread")
option(GRANARY_FUZZ "Build the libFuzzer targets (clang)" OFF)
# Off in the release preset: users build with compilers whose warnings we have not seen. What is no
# C any more stays an error.
option(GRANARY_WERROR "Warnings are errors" ON)

add_library(granary_flags INTERFACE)
target_compile_definitions(granary_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64)
target_compile_options(granary_flags INTERFACE
	-Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wwrite-strings
	-Wno-missing-field-initializers -fno-strict-aliasing
	-Werror=implicit-function-declaration -Werror=incompatible-pointer-types)
if(GRANARY_WERROR)
	target_compile_options(granary_flags INTERFACE -Werror)
endif()
target_include_directories(granary_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
if(GRANARY_SANITIZE)
	target_compile_options(granary_flags INTERFACE
		-fsanitize=${GRANARY_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
	target_link_options(granary_flags INTERFACE -fsanitize=${GRANARY_SANITIZE})
endif()
if(GRANARY_FUZZ)
	target_compile_options(granary_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# granary_library(NAME SOURCES a.c b.c USES lib ...): one folder's library, libgranary_NAME.a.
function(granary_library name)
	cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
	add_library(granary_${name} STATIC ${ARG_SOURCES})
	target_link_libraries(granary_${name} PUBLIC granary_flags ${ARG_USES})
endfunction()

# granary_unit_test(NAME USES lib ...): tests/unit/NAME.c as a cmocka program; exit 77 is "skipped".
function(granary_unit_test name)
	cmake_parse_arguments(ARG "" "TIMEOUT" "USES" ${ARGN})
	if(NOT ARG_TIMEOUT)
		set(ARG_TIMEOUT 900)
	endif()
	add_executable(${name} ${CMAKE_SOURCE_DIR}/tests/unit/${name}.c)
	target_link_libraries(${name} PRIVATE ${ARG_USES} PkgConfig::CMOCKA)
	set_target_properties(${name} PROPERTIES
		RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/unit)
	add_test(NAME unit.${name} COMMAND ${name})
	set_tests_properties(unit.${name} PROPERTIES
		TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77 LABELS unit)
	if(GRANARY_SANITIZE)
		set(supp ${CMAKE_SOURCE_DIR}/tests/sanitizers)
		set_property(TEST unit.${name} APPEND PROPERTY ENVIRONMENT
			"TSAN_OPTIONS=suppressions=${supp}/tsan.supp"
			"LSAN_OPTIONS=suppressions=${supp}/lsan.supp:print_suppressions=0")
	endif()
endfunction()
