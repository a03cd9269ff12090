# llama-cpp-python's build asks for llama.cpp's "common" library too: half of the work, and used by nothing that it installs.
# A variable set here, once the project is declared, is seen before the one that its CMakeLists.txt puts into the cache.
set(LLAMA_BUILD_COMMON OFF)
